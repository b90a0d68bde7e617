/* Included by every file that computes in float: the contract needs each operation rounded by itself. */
#include <float.h>

/* 16: _Float16 has arithmetic of its own, and float is as with 0. */
#if defined(__FAST_MATH__) || (defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16)
#error "edgegan needs float arithmetic rounded after every operation: no -ffast-math, no x87; on s390x -std=gnu11"
#endif
#if defined(_MSC_VER)
#pragma fp_contract(off)
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* gcc fuses by default unless -std=c11 is given */
#endif
