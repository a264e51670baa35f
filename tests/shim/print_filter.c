/* Prints the filter that the shim would install, an instruction a line. JOBLET_SECCOMP_ARCH says for which architecture. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "seccomp.c"

_Noreturn void die(enum stage stage, const char *call, ...)
{
    fprintf(stderr, "stage %d: %s\n", (int)stage, call);
    exit(1);
}

int main(void)
{
    static struct writer out;
    write_filter(&out);
    for (size_t i = 0; i < out.length; i++)
        printf("%u %u %u %u\n", out.at[i].code, out.at[i].jump_true, out.at[i].jump_false, out.at[i].value);
    return 0;
}
