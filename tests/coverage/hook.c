/* hook.c - part of libweir in coverage builds only: tells flush.c how to write this object's counters.
 *
 * Each program and library has counters of its own, and a function to write them that nobody outside sees.
 */
void __gcov_dump(void);
__attribute__((weak)) void weir_coverage_register(void (*dump)(void));

int weir__coverage_hook; /* what the linker is asked for, so that it takes this object from the archive */

__attribute__((constructor)) static void tell(void)
{
    if (weir_coverage_register)
        weir_coverage_register(__gcov_dump);
}
