/* Which kernels run on this processor. */
#include "edgegan.h"
#include "kernels.h"

#if EDGEGAN_X86_DISPATCH
#include <cpuid.h>
#endif

int edgegan_usable_kernels(const edgegan_kernels *found[4])
{
    int count = 0;
#if EDGEGAN_X86_DISPATCH
    /* The compiler's runtime has asked the processor and the operating system once, before main. */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
        found[count++] = &edgegan_kernels_avx512;
    if (__builtin_cpu_supports("avx2"))
        found[count++] = &edgegan_kernels_avx2;
#endif
#if EDGEGAN_X86
    found[count++] = &edgegan_kernels_sse2;
#elif EDGEGAN_NEON
    found[count++] = &edgegan_kernels_neon;
#endif
    found[count++] = &edgegan_kernels_scalar;
    return count;
}

const edgegan_kernels *edgegan_best_kernels(void)
{
    const edgegan_kernels *found[4];
    edgegan_usable_kernels(found);
    return found[0];
}

const char *edgegan_instruction_set(void)
{
    return edgegan_best_kernels()->name;
}

int edgegan_has_vnni(void)
{
#if EDGEGAN_X86_DISPATCH
    unsigned a, b, c, d;
    if (__builtin_cpu_supports("avx512bw") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 11 & 1) != 0)
        return 1; /* AVX512_VNNI */
    if (__builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1) != 0)
        return 1; /* AVX-VNNI */
#endif
    return 0;
}
