// y += scale * B A x, for rows that each have their own adapter. native_kernel.py compiles this file.
//
// A decode step calls this once per layer with a few rows. For such sizes a matrix library spends
// most of its time on setup. Up to four neighbouring rows of the same slot form a group, so that each
// weight is loaded once for all of them. Sums are float32. Between the two products, h is rounded to
// the model's dtype.

#include <cstdint>
#include <cstring>

namespace {

constexpr int LANES = 16;      // one AVX-512 register; the compiler splits it on narrower machines
constexpr int STEP = 2 * LANES;
constexpr int MAX_RANK = 512;  // maximum of RANKS in config.py
constexpr int MAX_GROUP = 4;   // rows

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

struct bf16 {
    uint16_t bits;
};

// STEP numbers. For float32: the first and the second half. For bf16: the numbers at even and at odd
// positions, because a shift and a mask separate them. Products and sums do not depend on the order.
struct Pair {
    Floats first, second;
};

template <class To, class From>
inline To as(const From &from) {
    To to;
    static_assert(sizeof to == sizeof from, "sizes differ");
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class To>
inline To read(const void *from) {
    To to;
    std::memcpy(&to, from, sizeof to);
    return to;
}

inline float load_one(const float *p) { return *p; }
inline float load_one(const bf16 *p) { return as<float>(uint32_t(p->bits) << 16); }

inline Pair load(const float *p) { return {read<Floats>(p), read<Floats>(p + LANES)}; }
inline Pair load(const bf16 *p) {
    const Words words = read<Words>(p);
    return {as<Floats>(words << 16), as<Floats>(words & 0xffff0000u)};
}

// Round to nearest even in the upper half of each word. A NaN stays a NaN.
inline uint32_t rounded(float f) {
    const uint32_t w = as<uint32_t>(f);
    return (w & 0x7fffffffu) > 0x7f800000u ? w | 0x400000u : w + 0x7fffu + (w >> 16 & 1u);
}
inline Words rounded(Floats f) {
    const Words w = as<Words>(f);
    const Words nan = as<Words>((w & 0x7fffffffu) > 0x7f800000u);
    return (nan & (w | 0x400000u)) | (~nan & (w + 0x7fffu + (w >> 16 & 1u)));
}

inline void store_one(float *p, float f) { *p = f; }
inline void store_one(bf16 *p, float f) { p->bits = uint16_t(rounded(f) >> 16); }

inline void store(float *p, const Pair &x) {
    std::memcpy(p, &x.first, sizeof x.first);
    std::memcpy(p + LANES, &x.second, sizeof x.second);
}
inline void store(bf16 *p, const Pair &x) {
    const Words words = rounded(x.first) >> 16 | (rounded(x.second) & 0xffff0000u);
    std::memcpy(p, &words, sizeof words);
}

inline float sum(Floats f) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += f[i];
    return total;
}

// Down-projection: h[m][rank + k] = x[m] . a[k] for M rows and K ranks.
template <class T, int M, int K>
inline void down(const T *const *x, const T *a, int64_t in, float (*h)[MAX_RANK], int64_t rank) {
    Floats sums[M][K] = {};
    int64_t i = 0;
    for (; i + STEP <= in; i += STEP) {
        Pair weights[K];
        for (int k = 0; k < K; k++) weights[k] = load(a + k * in + i);
        for (int m = 0; m < M; m++) {
            const Pair v = load(x[m] + i);
            for (int k = 0; k < K; k++) {
                sums[m][k] += v.first * weights[k].first;
                sums[m][k] += v.second * weights[k].second;
            }
        }
    }
    for (int m = 0; m < M; m++) {
        for (int k = 0; k < K; k++) {
            float total = sum(sums[m][k]);
            for (int64_t rest = i; rest < in; rest++)
                total += load_one(x[m] + rest) * load_one(a + k * in + rest);
            T between;
            store_one(&between, total);
            h[m][rank + k] = load_one(&between);
        }
    }
}

// Up-projection: y[m] += sum over k of h[m][k] b[k] for M rows.
template <class T, int M>
inline void up(T *const *y, const float (*h)[MAX_RANK], const T *b, int64_t out, int64_t rank) {
    int64_t j = 0;
    for (; j + STEP <= out; j += STEP) {
        Pair sums[M];
        for (int m = 0; m < M; m++) sums[m] = load(y[m] + j);
        for (int64_t k = 0; k < rank; k++) {
            const Pair weights = load(b + k * out + j);
            for (int m = 0; m < M; m++) {
                sums[m].first += h[m][k] * weights.first;
                sums[m].second += h[m][k] * weights.second;
            }
        }
        for (int m = 0; m < M; m++) store(y[m] + j, sums[m]);
    }
    for (; j < out; j++) {
        for (int m = 0; m < M; m++) {
            float total = load_one(y[m] + j);
            for (int64_t k = 0; k < rank; k++) total += h[m][k] * load_one(b + k * out + j);
            store_one(y[m] + j, total);
        }
    }
}

// One slice of a packed layer, as native_kernel.SliceDescriptor.
struct SliceDescriptor {
    const void *a, *b;
    int64_t start, out, rank;
};

// M rows of the same slot.
template <class T, int M>
void add_group(T *const *y, const T *const *x, int64_t slot, int64_t in, const SliceDescriptor *slices,
               int64_t n_slices, float scale) {
    for (const SliceDescriptor *slice = slices; slice < slices + n_slices; slice++) {
        const int64_t rank = slice->rank, out = slice->out;
        const T *a = static_cast<const T *>(slice->a) + slot * rank * in;
        const T *b = static_cast<const T *>(slice->b) + slot * rank * out;
        float h[M][MAX_RANK];
        int64_t k = 0;
        for (; k + 4 <= rank; k += 4) down<T, M, 4>(x, a + k * in, in, h, k);
        for (; k < rank; k++) down<T, M, 1>(x, a + k * in, in, h, k);
        T *target[M];
        for (int m = 0; m < M; m++) {
            target[m] = y[m] + slice->start;
            for (k = 0; k < rank; k++) h[m][k] *= scale;
        }
        up<T, M>(target, h, b, out, rank);
    }
}

// Up to MAX_GROUP neighbouring rows. Consecutive rows of the same slot form a group of 1, 2 or 4.
template <class T>
void add_block(T *y, int64_t y_stride, const T *x, int64_t x_stride, const int64_t *tokens,
               const int64_t *slots, int64_t count, int64_t in, const SliceDescriptor *slices,
               int64_t n_slices, float scale) {
    for (int64_t t = 0, n; t < count; t += n) {
        for (n = 1; t + n < count && slots[t + n] == slots[t];) n++;
        if (n == 3) n = 2;
        T *ys[MAX_GROUP];
        const T *xs[MAX_GROUP];
        for (int64_t i = 0; i < n; i++) {
            ys[i] = y + tokens[t + i] * y_stride;
            xs[i] = x + tokens[t + i] * x_stride;
        }
        switch (n) {
            case 4: add_group<T, 4>(ys, xs, slots[t], in, slices, n_slices, scale); break;
            case 2: add_group<T, 2>(ys, xs, slots[t], in, slices, n_slices, scale); break;
            default: add_group<T, 1>(ys, xs, slots[t], in, slices, n_slices, scale);
        }
    }
}

// All rows, shared among the engine's threads: one core alone cannot use the whole memory bandwidth.
template <class T>
void add(T *y, int64_t y_stride, const T *x, int64_t x_stride, const int64_t *tokens, const int64_t *slots,
         int64_t count, int64_t in, const SliceDescriptor *slices, int64_t n_slices, float scale) {
#pragma omp parallel for schedule(static) if (count > MAX_GROUP)
    for (int64_t t = 0; t < count; t += MAX_GROUP) {
        const int64_t n = count - t < MAX_GROUP ? count - t : MAX_GROUP;
        add_block(y, y_stride, x, x_stride, tokens + t, slots + t, n, in, slices, n_slices, scale);
    }
}

}  // namespace

#define EXPORT(NAME, T)                                                                                  \
    extern "C" void NAME(T *y, int64_t y_stride, const T *x, int64_t x_stride, const int64_t *tokens,    \
                         const int64_t *slots, int64_t count, int64_t in, const SliceDescriptor *slices, \
                         int64_t n_slices, float scale) {                                                \
        add(y, y_stride, x, x_stride, tokens, slots, count, in, slices, n_slices, scale);                \
    }

EXPORT(add_lora_float32, float)
EXPORT(add_lora_bfloat16, bf16)
