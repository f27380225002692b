/* statics_begin.c - linked before the code: its static variables come after these (kernel.c). */
extern char prove_data_begin[16], prove_bss_begin[16];
_Alignas(64) char prove_data_begin[16] = {1};
_Alignas(64) char prove_bss_begin[16];
