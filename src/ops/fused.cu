// The operations of src/ops/plain.rs that would be many launches, each as one kernel for GPUs. Statistics and sums are f32; what is read
// and written is f32 or bf16. Tensors lie one number behind the other.
//
// A block takes a row, or blocks share all numbers; either way a thread takes every n-th number, so that one thread alone computes
// the same. Tests compile this for the CPU and run it so, see twin.rs.

struct Bf16 {
    unsigned short bits;
};

__device__ inline float read(float x) { return x; }

__device__ inline float read(Bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ inline void write(float *at, float x) { *at = x; }

__device__ inline void write(Bf16 *at, float x)
{
    const unsigned bits = __float_as_uint(x);
    at->bits = x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <typename T> __device__ inline float rounded(float x)
{
    T rounded;
    write(&rounded, x);
    return read(rounded);
}

// What all threads of a block get of what each has: their sum, largest number, or sum of whole numbers.
#ifdef __CUDACC__
template <typename F, typename N> __device__ inline N of_block(N x, N none, F f)
{
    __shared__ N parts[32];
    for (int far = 16; far > 0; far /= 2)
        x = f(x, __shfl_xor_sync(0xffffffff, x, far));
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = none;
    for (unsigned i = 0; i < (blockDim.x + 31) / 32; i++)
        x = f(x, parts[i]);
    return x;
}
#else
template <typename F, typename N> inline N of_block(N x, N, F) { return x; }
#endif

struct Sum {
    template <typename N> __device__ N operator()(N a, N b) const { return a + b; }
};

struct Most {
    template <typename N> __device__ N operator()(N a, N b) const { return a > b ? a : b; }
};

__device__ inline float sum(float x) { return of_block(x, 0.0f, Sum()); }
__device__ inline unsigned count(unsigned x) { return of_block(x, 0u, Sum()); }
__device__ inline float most(float x) { return of_block(x, -INFINITY, Most()); }

#define ALONG(i, n) for (unsigned i = threadIdx.x; i < (n); i += blockDim.x)
#define EACH(i, n) for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (size_t)gridDim.x * blockDim.x)

// ---- norms ----

template <typename T> __device__ float root_mean_square(const T *x, unsigned n, float eps)
{
    float squares = 0;
    ALONG(i, n) squares += read(x[i]) * read(x[i]);
    return 1 / sqrtf(sum(squares) / n + eps);
}

// y = x / rms(x) * weight, a block for each row of n.
template <typename T> __device__ void rms_norm(T *y, const T *x, const T *weight, unsigned n, float eps)
{
    const size_t row = (size_t)blockIdx.x * n;
    const float scale = root_mean_square(x + row, n, eps);
    ALONG(i, n) write(y + row + i, rounded<T>(read(x[row + i]) * scale) * read(weight[i]));
}

// The same of x + more, which is written to `both`.
template <typename T> __device__ void add_rms_norm(T *y, T *both, const T *x, const T *more, const T *weight, unsigned n, float eps)
{
    const size_t row = (size_t)blockIdx.x * n;
    float squares = 0;
    ALONG(i, n) {
        const float s = rounded<T>(read(x[row + i]) + read(more[row + i]));
        write(both + row + i, s);
        squares += s * s;
    }
    const float scale = 1 / sqrtf(sum(squares) / n + eps);
    ALONG(i, n) write(y + row + i, rounded<T>(read(both[row + i]) * scale) * read(weight[i]));
}

// The gradient of x in rms_norm.
template <typename T> __device__ void rms_norm_back(T *dx, const T *g, const T *x, const T *weight, unsigned n, float eps)
{
    const size_t row = (size_t)blockIdx.x * n;
    const float scale = root_mean_square(x + row, n, eps);
    float along = 0;
    ALONG(i, n) along += read(g[row + i]) * read(weight[i]) * read(x[row + i]) * scale;
    along = sum(along) / n;
    ALONG(i, n) write(dx + row + i, (read(g[row + i]) * read(weight[i]) - read(x[row + i]) * scale * along) * scale);
}

// Mean and one over the deviation.
template <typename T> __device__ void moments(const T *x, unsigned n, float eps, float *mean, float *scale)
{
    float s = 0, squares = 0;
    ALONG(i, n) s += read(x[i]);
    *mean = sum(s) / n;
    ALONG(i, n) squares += (read(x[i]) - *mean) * (read(x[i]) - *mean);
    *scale = 1 / sqrtf(sum(squares) / n + eps);
}

// y = (x - mean) / deviation * factor + summand; `rows` rows of n share those two.
template <typename T> __device__ void layer_norm(T *y, const T *x, const T *factor, const T *summand, unsigned n, unsigned rows, float eps)
{
    const size_t row = (size_t)blockIdx.x * n, shared = (size_t)(blockIdx.x / rows) * n;
    float mean, scale;
    moments(x + row, n, eps, &mean, &scale);
    ALONG(i, n) write(y + row + i, (read(x[row + i]) - mean) * scale * read(factor[shared + i]) + read(summand[shared + i]));
}

// The gradient of x in layer_norm.
template <typename T> __device__ void layer_norm_back(T *dx, const T *g, const T *x, const T *factor, unsigned n, unsigned rows, float eps)
{
    const size_t row = (size_t)blockIdx.x * n, shared = (size_t)(blockIdx.x / rows) * n;
    float mean, scale, s = 0, along = 0;
    moments(x + row, n, eps, &mean, &scale);
    ALONG(i, n) {
        const float gf = read(g[row + i]) * read(factor[shared + i]);
        s += gf;
        along += gf * (read(x[row + i]) - mean) * scale;
    }
    s = sum(s) / n;
    along = sum(along) / n;
    ALONG(i, n) {
        const float hat = (read(x[row + i]) - mean) * scale;
        write(dx + row + i, (read(g[row + i]) * read(factor[shared + i]) - s - hat * along) * scale);
    }
}

// ---- queries and keys: [B, T, heads, d], channel j turned with j + d / 2, a block for each token and head ----

// Where a block's head and its angles are. Each row of weights serves `serves` heads; angles are [B or 1, T, d / 2].
struct Head {
    size_t at, angles, weights;

    __device__ Head(unsigned d, unsigned tokens, unsigned serves, bool each)
    {
        const unsigned token = blockIdx.x;
        at = ((size_t)token * gridDim.y + blockIdx.y) * d;
        angles = (size_t)(each ? token : token % tokens) * (d / 2);
        weights = serves ? (size_t)(blockIdx.y / serves) * d : 0;
    }
};

template <typename T>
__device__ void norm_turn(T *y, const T *x, const T *weight, const T *bias, const T *cosines, const T *sines, unsigned d, unsigned tokens,
                          unsigned serves, unsigned each, float eps)
{
    const Head head(d, tokens, serves, each);
    const unsigned half = d / 2;
    x += head.at, y += head.at, weight += head.weights, bias += head.weights;
    float mean, scale;
    moments(x, d, eps, &mean, &scale);
    ALONG(j, half) {
        const float c = read(cosines[head.angles + j]), s = read(sines[head.angles + j]);
        const float a = rounded<T>((read(x[j]) - mean) * scale) * read(weight[j]) + read(bias[j]);
        const float b = rounded<T>((read(x[j + half]) - mean) * scale) * read(weight[j + half]) + read(bias[j + half]);
        write(y + j, a * c - b * s);
        write(y + j + half, b * c + a * s);
    }
}

// `back` is 1, or -1 to turn back.
template <typename T>
__device__ void turn(T *y, const T *x, const T *cosines, const T *sines, unsigned d, unsigned tokens, unsigned each, float back)
{
    const Head head(d, tokens, 0, each);
    const unsigned half = d / 2;
    x += head.at, y += head.at;
    ALONG(j, half) {
        const float c = read(cosines[head.angles + j]), s = read(sines[head.angles + j]) * back;
        const float a = read(x[j]), b = read(x[j + half]);
        write(y + j, a * c - b * s);
        write(y + j + half, b * c + a * s);
    }
}

// The gradient of x in norm_turn.
template <typename T>
__device__ void norm_turn_back(T *dx, const T *g, const T *x, const T *weight, const T *cosines, const T *sines, unsigned d, unsigned tokens,
                               unsigned serves, unsigned each, float eps)
{
    const Head head(d, tokens, serves, each);
    const unsigned half = d / 2;
    x += head.at, g += head.at, dx += head.at, weight += head.weights;
    float mean, scale, s = 0, along = 0;
    moments(x, d, eps, &mean, &scale);
    for (int pass = 0; pass < 2; pass++) {
        ALONG(j, half) {
            const float c = read(cosines[head.angles + j]), sine = read(sines[head.angles + j]);
            const float a = (read(g[j]) * c + read(g[j + half]) * sine) * read(weight[j]);
            const float b = (read(g[j + half]) * c - read(g[j]) * sine) * read(weight[j + half]);
            const float p = (read(x[j]) - mean) * scale, q = (read(x[j + half]) - mean) * scale;
            if (pass == 0) {
                s += a + b;
                along += a * p + b * q;
            } else {
                write(dx + j, (a - s - p * along) * scale);
                write(dx + j + half, (b - s - q * along) * scale);
            }
        }
        if (pass == 0) {
            s = sum(s) / d;
            along = sum(along) / d;
        }
    }
}

// New keys and values [B, T, heads, d] into caches [B, heads, capacity, d], from slot `at` on. A block for each token and head.
template <typename T>
__device__ void put(T *keys, T *values, const T *k, const T *v, unsigned heads, unsigned tokens, unsigned d, unsigned capacity, unsigned at)
{
    const size_t from = ((size_t)blockIdx.x * heads + blockIdx.y) * d;
    const size_t row = (size_t)(blockIdx.x / tokens) * heads + blockIdx.y;
    const size_t to = (row * capacity + at + blockIdx.x % tokens) * d;
    ALONG(i, d) {
        keys[to + i] = k[from + i];
        values[to + i] = v[from + i];
    }
}

// ---- attention ----

// Probabilities of scores [B, heads, T, S] times `scale`, a block for each row. A token sees the slots from `first` to `last`, each one
// number for all, or one for each row of the batch or token at these distances; without them all before or behind.
template <typename T>
__device__ void softmax(T *p, const T *scores, const unsigned *first, const unsigned *last, unsigned heads, unsigned tokens,
                        unsigned slots, unsigned first_far, unsigned first_near, unsigned last_far, unsigned last_near, float scale)
{
    const size_t row = (size_t)blockIdx.x * slots;
    const unsigned t = blockIdx.x % tokens, b = blockIdx.x / tokens / heads;
    const unsigned from = first ? first[b * first_far + t * first_near] : 0;
    const unsigned until = last ? last[b * last_far + t * last_near] : slots - 1;
    float top = -INFINITY, all = 0;
    ALONG(i, slots)
        if (i >= from && i <= until) top = Most()(top, read(scores[row + i]) * scale);
    top = most(top);
    ALONG(i, slots)
        if (i >= from && i <= until) all += expf(read(scores[row + i]) * scale - top);
    all = sum(all);
    ALONG(i, slots)
        write(p + row + i, i >= from && i <= until ? expf(read(scores[row + i]) * scale - top) / all : 0.0f);
}

// The gradient of the scores.
template <typename T> __device__ void softmax_back(T *ds, const T *dp, const T *p, unsigned slots, float scale)
{
    const size_t row = (size_t)blockIdx.x * slots;
    float along = 0;
    ALONG(i, slots) along += read(dp[row + i]) * read(p[row + i]);
    along = sum(along);
    ALONG(i, slots) write(ds + row + i, read(p[row + i]) * (read(dp[row + i]) - along) * scale);
}

// ---- gates ----

template <typename T> __device__ void silu_mul(T *y, const T *gate, const T *up, size_t n)
{
    EACH(i, n)
    {
        const float x = read(gate[i]);
        write(y + i, x / (1 + expf(-x)) * read(up[i]));
    }
}

// The gradients of gate and, behind it, of up.
template <typename T> __device__ void silu_mul_back(T *both, const T *g, const T *gate, const T *up, size_t n)
{
    EACH(i, n)
    {
        const float x = read(gate[i]), s = 1 / (1 + expf(-x));
        write(both + i, read(g[i]) * read(up[i]) * s * (1 + x * (1 - s)));
        write(both + n + i, read(g[i]) * x * s);
    }
}

// y = sum + x * gate, or x * gate without a sum; `numbers` numbers share a gate of `width`.
template <typename T> __device__ void gated(T *y, const T *before, const T *x, const T *gate, size_t n, unsigned width, size_t numbers)
{
    EACH(i, n)
    {
        const float product = read(x[i]) * read(gate[i / numbers * width + i % width]);
        write(y + i, before ? read(before[i]) + product : product);
    }
}

// y = x + bias of `width`
template <typename T> __device__ void biased(T *y, const T *x, const T *bias, size_t n, unsigned width)
{
    EACH(i, n) write(y + i, read(x[i]) + read(bias[i % width]));
}

// ---- queries and keys by cosines: channels 2j and 2j + 1 turned together, f32 ----

// Heads of x [B, T, pitch] at `first`, of length `strengths`, to y [B, T, heads, d]; angles are [T, d / 2]. A block for each token and
// head.
extern "C" __global__ void cosine_turn_f32(float *y, const float *x, const float *strengths, const float *cosines, const float *sines,
                                           unsigned d, unsigned tokens, unsigned pitch, unsigned first)
{
    const size_t token = blockIdx.x, angles = (token % tokens) * (d / 2);
    x += token * pitch + first + blockIdx.y * d, y += (token * gridDim.y + blockIdx.y) * d;
    float squares = 0;
    ALONG(i, d) squares += x[i] * x[i];
    const float length = sqrtf(sum(squares)), factor = strengths[blockIdx.y] / (length > 1e-12f ? length : 1e-12f);
    ALONG(j, d / 2) {
        const float c = cosines[angles + j], s = sines[angles + j], p = x[2 * j] * factor, q = x[2 * j + 1] * factor;
        y[2 * j] = p * c - q * s;
        y[2 * j + 1] = q * c + p * s;
    }
}

// The gradient of x, to its place in dx, and that of the strength for each token and head.
extern "C" __global__ void cosine_turn_back_f32(float *dx, float *ds, const float *g, const float *x, const float *strengths,
                                                const float *cosines, const float *sines, unsigned d, unsigned tokens, unsigned pitch,
                                                unsigned first)
{
    const size_t token = blockIdx.x, angles = (token % tokens) * (d / 2), head = token * gridDim.y + blockIdx.y;
    x += token * pitch + first + blockIdx.y * d, dx += token * pitch + first + blockIdx.y * d, g += head * d;
    float squares = 0, along = 0;
    ALONG(i, d) squares += x[i] * x[i];
    const float length = sqrtf(sum(squares)), inverse = 1 / (length > 1e-12f ? length : 1e-12f);
    for (int pass = 0; pass < 2; pass++) {
        ALONG(j, d / 2) {
            const float c = cosines[angles + j], s = sines[angles + j];
            const float a = g[2 * j] * c + g[2 * j + 1] * s, b = g[2 * j + 1] * c - g[2 * j] * s;
            const float p = x[2 * j] * inverse, q = x[2 * j + 1] * inverse;
            if (pass == 0) {
                along += a * p + b * q;
            } else {
                dx[2 * j] = (a - p * along) * inverse * strengths[blockIdx.y];
                dx[2 * j + 1] = (b - q * along) * inverse * strengths[blockIdx.y];
            }
        }
        if (pass == 0) along = sum(along);
    }
    if (threadIdx.x == 0) ds[head] = along;
}

// ---- dropout ----

// y = x with some numbers zero and the rest times `kept`: the bits of `Masked::make` in src/random.rs, Philox4x32 of ten rounds, four
// numbers a counter.
template <typename T>
__device__ void dropout(T *y, const T *x, unsigned n, unsigned site, unsigned purpose, unsigned step, unsigned seed_low, unsigned seed_high,
                        unsigned long long threshold, float kept)
{
    EACH(block, (n + 3) / 4)
    {
        unsigned c0 = block, c1 = site, c2 = purpose, c3 = step, k0 = seed_low, k1 = seed_high;
        for (int round = 0; round < 10; round++) {
            if (round > 0) {
                k0 += 0x9E3779B9u;
                k1 += 0xBB67AE85u;
            }
            const unsigned long long a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
            c0 = (unsigned)(b >> 32) ^ c1 ^ k0;
            c1 = (unsigned)b;
            c2 = (unsigned)(a >> 32) ^ c3 ^ k1;
            c3 = (unsigned)a;
        }
        const unsigned bits[4] = {c0, c1, c2, c3};
        for (unsigned i = 0; i < 4 && 4 * block + i < n; i++)
            write(y + 4 * block + i, bits[i] < threshold ? read(x[4 * block + i]) * kept : 0.0f);
    }
}

// ---- drawing ----

// A number as a whole one: the larger the one, the larger the other.
__device__ inline unsigned ordered(float x)
{
    // 0 and -0 are equal.
    const unsigned bits = __float_as_uint(x + 0.0f);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

// What codes are drawn from: guidance, if `scale` is not 1, with the row `rows` behind; the k largest, if k is not 0; temperature. f32, a
// block for each row.
extern "C" __global__ void scores_f32(float *y, const float *logits, unsigned codes, unsigned rows, unsigned k, float scale, float temperature)
{
    const float *x = logits + (size_t)blockIdx.x * codes, *other = x + (size_t)rows * codes;
    y += (size_t)blockIdx.x * codes;
    ALONG(i, codes) y[i] = scale == 1 ? x[i] : (x[i] - other[i]) * scale + other[i];
    // The k-th largest is the largest that k of them reach, found bit by bit.
    unsigned kth = 0;
    if (k > 0 && k < codes)
        for (int bit = 31; bit >= 0; bit--) {
            unsigned reach = 0;
            ALONG(i, codes) reach += ordered(y[i]) >= (kth | 1u << bit);
            if (count(reach) >= k) kth |= 1u << bit;
        }
    ALONG(i, codes) {
        const bool kept = y[i] != y[i] || ordered(y[i]) >= kth;
        y[i] = kept ? (temperature == 1 ? y[i] : y[i] / temperature) : -INFINITY;
    }
}

// The place of the largest of scores + noise, the first of equal ones; `unsound` where the scores are not numbers. A block for each row.
extern "C" __global__ void draw_f32(unsigned *drawn, const float *scores, const float *noise, unsigned codes, unsigned unsound)
{
    const float *x = scores + (size_t)blockIdx.x * codes, *more = noise + (size_t)blockIdx.x * codes;
    float top = -INFINITY, all = 0;
    ALONG(i, codes) {
        top = Most()(top, x[i] + more[i]);
        all += x[i];
    }
    top = most(top);
    all = sum(all);
    // Counted from the end, so that the largest is the first.
    unsigned place = 0;
    ALONG(i, codes)
        if (x[i] + more[i] == top) place = Most()(place, codes - i);
    place = of_block(place, 0u, Most());
    if (threadIdx.x == 0) drawn[blockIdx.x] = all != all || place == 0 ? unsound : codes - place;
}

// ---- for numbers of both kinds ----

#define KERNEL(name, parameters, arguments) \
    extern "C" __global__ void name##_f32 parameters(float) { name<float> arguments; } \
    extern "C" __global__ void name##_bf16 parameters(Bf16) { name<Bf16> arguments; }
#define P(T) (T *y, const T *x, const T *weight, unsigned n, float eps)
KERNEL(rms_norm, P, (y, x, weight, n, eps))
#undef P
#define P(T) (T *y, T *both, const T *x, const T *more, const T *weight, unsigned n, float eps)
KERNEL(add_rms_norm, P, (y, both, x, more, weight, n, eps))
#undef P
#define P(T) (T *dx, const T *g, const T *x, const T *weight, unsigned n, float eps)
KERNEL(rms_norm_back, P, (dx, g, x, weight, n, eps))
#undef P
#define P(T) (T *y, const T *x, const T *factor, const T *summand, unsigned n, unsigned rows, float eps)
KERNEL(layer_norm, P, (y, x, factor, summand, n, rows, eps))
#undef P
#define P(T) (T *dx, const T *g, const T *x, const T *factor, unsigned n, unsigned rows, float eps)
KERNEL(layer_norm_back, P, (dx, g, x, factor, n, rows, eps))
#undef P
#define P(T) \
    (T *y, const T *x, const T *weight, const T *bias, const T *cosines, const T *sines, unsigned d, unsigned tokens, unsigned serves, \
     unsigned each, float eps)
KERNEL(norm_turn, P, (y, x, weight, bias, cosines, sines, d, tokens, serves, each, eps))
#undef P
#define P(T) (T *y, const T *x, const T *cosines, const T *sines, unsigned d, unsigned tokens, unsigned each, float back)
KERNEL(turn, P, (y, x, cosines, sines, d, tokens, each, back))
#undef P
#define P(T) \
    (T *dx, const T *g, const T *x, const T *weight, const T *cosines, const T *sines, unsigned d, unsigned tokens, unsigned serves, \
     unsigned each, float eps)
KERNEL(norm_turn_back, P, (dx, g, x, weight, cosines, sines, d, tokens, serves, each, eps))
#undef P
#define P(T) \
    (T *p, const T *scores, const unsigned *first, const unsigned *last, unsigned heads, unsigned tokens, unsigned slots, \
     unsigned first_far, unsigned first_near, unsigned last_far, unsigned last_near, float scale)
KERNEL(softmax, P, (p, scores, first, last, heads, tokens, slots, first_far, first_near, last_far, last_near, scale))
#undef P
#define P(T) (T *ds, const T *dp, const T *p, unsigned slots, float scale)
KERNEL(softmax_back, P, (ds, dp, p, slots, scale))
#undef P
#define P(T) (T *y, const T *gate, const T *up, size_t n)
KERNEL(silu_mul, P, (y, gate, up, n))
#undef P
#define P(T) (T *both, const T *g, const T *gate, const T *up, size_t n)
KERNEL(silu_mul_back, P, (both, g, gate, up, n))
#undef P
#define P(T) (T *y, const T *before, const T *x, const T *gate, size_t n, unsigned width, size_t numbers)
KERNEL(gated, P, (y, before, x, gate, n, width, numbers))
#undef P
#define P(T) (T *y, const T *x, const T *bias, size_t n, unsigned width)
KERNEL(biased, P, (y, x, bias, n, width))
#undef P
#define P(T) \
    (T *y, const T *x, unsigned n, unsigned site, unsigned purpose, unsigned step, unsigned seed_low, unsigned seed_high, \
     unsigned long long threshold, float kept)
KERNEL(dropout, P, (y, x, n, site, purpose, step, seed_low, seed_high, threshold, kept))
#undef P
#define P(T) \
    (T *keys, T *values, const T *k, const T *v, unsigned heads, unsigned tokens, unsigned d, unsigned capacity, unsigned at)
KERNEL(put, P, (keys, values, k, v, heads, tokens, d, capacity, at))
#undef P
