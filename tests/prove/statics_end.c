/* statics_end.c - linked behind the code and the cases; see statics_begin.c. */
extern char prove_data_end[16], prove_bss_end[16];
_Alignas(64) char prove_data_end[16] = {1};
_Alignas(64) char prove_bss_end[16];
