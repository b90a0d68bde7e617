/* Between two latents, on the line or on the arc. edgegan/_pure.py is the same in NumPy, to the bit: so the sine
 * and the arc cosine are series of our own, summed in a fixed order, and not the C library's, which differ. Only
 * sqrt is taken from there: IEEE 754 fixes its bits. */
#include "edgegan.h"

#include <math.h>

#include "rounding.h"

enum { LANES = 16 }; /* partial sums of a dot product; fixed, since their number decides how the sum is rounded */

static const double PI = 3.14159265358979323846;

/* The product of two floats is exact in double. */
static double dot(const float *a, const float *b, size_t dim)
{
    double sums[LANES] = {0};
    for (size_t i = 0; i < dim; i++)
        sums[i % LANES] += (double)a[i] * (double)b[i];
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; lane++)
            sums[lane] += sums[lane + half];
    return sums[0];
}

/* |x| <= 0.5: the Taylor series; after 26 terms less than 2^-54 is left. */
static double arc_sine(double x)
{
    const double square = x * x;
    double power = x, sum = x;
    for (int k = 1; k < 26; k++) {
        power = power * square;
        power = power * (2 * k - 1) / (2 * k); /* x^(2k+1) (1 * 3 * ... * (2k-1)) / (2 * 4 * ... * 2k) */
        const double term = power / (2 * k + 1);
        sum = sum + term;
    }
    return sum;
}

static double arc_cosine(double x)
{
    if (x > 0.5)
        return 2 * arc_sine(sqrt((1 - x) / 2));
    if (x < -0.5)
        return PI - 2 * arc_sine(sqrt((1 + x) / 2));
    return PI / 2 - arc_sine(x);
}

/* 0 <= x <= pi: the Taylor series at most pi / 2 from 0; after 13 terms less than 2^-70 is left. */
static double sine(double x)
{
    if (x > PI / 2)
        x = PI - x;
    const double square = x * x;
    double term = x, sum = x;
    for (int k = 1; k < 13; k++) {
        term = term * square;
        term = -term / (2 * k * (2 * k + 1));
        sum = sum + term;
    }
    return sum;
}

static edgegan_status check(size_t dim, const double *t, size_t count, size_t items)
{
    if (dim < 1)
        return EDGEGAN_ERROR_ARGUMENT;
    for (size_t i = 0; i < count; i++)
        if (!(t[i] >= 0 && t[i] <= 1))
            return EDGEGAN_ERROR_ARGUMENT;
    if (count > SIZE_MAX / sizeof(float) / dim)
        return EDGEGAN_ERROR_OVERFLOW;
    return count * dim == items ? EDGEGAN_OK : EDGEGAN_ERROR_BUFFER;
}

static void blend(const float *a, const float *b, size_t dim, double weight_a, double weight_b, float *out)
{
    const float wa = (float)weight_a, wb = (float)weight_b;
    for (size_t i = 0; i < dim; i++) {
        const float part_a = wa * a[i], part_b = wb * b[i];
        out[i] = part_a + part_b;
    }
}

edgegan_status edgegan_lerp(const float *a, const float *b, size_t dim, const double *t, size_t count,
                            float *out, size_t items)
{
    const edgegan_status status = check(dim, t, count, items);
    if (status != EDGEGAN_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        blend(a, b, dim, 1 - t[i], t[i], out + i * dim);
    return EDGEGAN_OK;
}

edgegan_status edgegan_slerp(const float *a, const float *b, size_t dim, const double *t, size_t count,
                             float *out, size_t items)
{
    const edgegan_status status = check(dim, t, count, items);
    if (status != EDGEGAN_OK)
        return status;
    const double cosine = dot(a, b, dim) / (sqrt(dot(a, a, dim)) * sqrt(dot(b, b, dim)));
    if (!((1 - cosine) * (1 + cosine) >= 1e-12)) /* the negation: 0 / 0 is not a number */
        return edgegan_lerp(a, b, dim, t, count, out, items);
    const double angle = arc_cosine(cosine), whole = sine(angle);
    for (size_t i = 0; i < count; i++)
        blend(a, b, dim, sine((1 - t[i]) * angle) / whole, sine(t[i] * angle) / whole, out + i * dim);
    return EDGEGAN_OK;
}
