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

// What all threads of a warp, or of a block, get of what each has: their sum, largest number, or sum of whole numbers.
#ifdef __CUDACC__
constexpr unsigned WARP = 32;
#define UNROLL _Pragma("unroll")

template <typename F, typename N> __device__ inline N of_warp(N x, F f)
{
    for (int far = 16; far > 0; far /= 2)
        x = f(x, __shfl_xor_sync(0xffffffff, x, far));
    return x;
}

template <typename F, typename N> __device__ inline N of_block(N x, N none, F f)
{
    __shared__ N parts[32];
    x = of_warp(x, f);
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
constexpr unsigned WARP = 1;
#define UNROLL
#define __launch_bounds__(threads)
#define __shared__ static
#define __syncthreads()
template <typename F, typename N> inline N of_warp(N x, F) { return x; }
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

// Where a block's head and its angles are. Tokens are `pitch` numbers apart; each row of weights serves `serves` heads; the angles of a
// row of the batch, [T, d / 2], are `far` numbers behind those of the row before, which is 0 if all have the same.
struct Head {
    size_t at, to, angles, weights;

    __device__ Head(unsigned d, unsigned tokens, unsigned pitch, unsigned serves, unsigned far)
    {
        const size_t token = blockIdx.x;
        at = token * pitch + blockIdx.y * d;
        to = (token * gridDim.y + blockIdx.y) * d;
        angles = token / tokens * far + token % tokens * (d / 2);
        weights = serves ? (size_t)(blockIdx.y / serves) * d : 0;
    }
};

// A head behind its norm, if it has a weight, and its rotation. `back` is 1, or -1 to turn back.
template <typename T>
__device__ void turned(T *y, const T *x, const T *weight, const T *bias, const T *cosines, const T *sines, unsigned d, float eps, float back)
{
    const unsigned half = d / 2;
    float mean = 0, scale = 1;
    if (weight) moments(x, d, eps, &mean, &scale);
    ALONG(j, half) {
        const float c = read(cosines[j]), s = read(sines[j]) * back;
        float p = read(x[j]), q = read(x[j + half]);
        if (weight) {
            p = rounded<T>((p - mean) * scale) * read(weight[j]) + read(bias[j]);
            q = rounded<T>((q - mean) * scale) * read(weight[j + half]) + read(bias[j + half]);
        }
        write(y + j, p * c - q * s);
        write(y + j + half, q * c + p * s);
    }
}

template <typename T>
__device__ void norm_turn(T *y, const T *x, const T *weight, const T *bias, const T *cosines, const T *sines, unsigned d, unsigned tokens,
                          unsigned pitch, unsigned serves, unsigned far, float eps)
{
    const Head head(d, tokens, pitch, serves, far);
    turned(y + head.to, x + head.at, weight + head.weights, bias + head.weights, cosines + head.angles, sines + head.angles, d, eps, 1);
}

template <typename T>
__device__ void turn(T *y, const T *x, const T *cosines, const T *sines, unsigned d, unsigned tokens, unsigned pitch, unsigned far,
                     float back)
{
    const Head head(d, tokens, pitch, 0, far);
    turned<T>(y + head.to, x + head.at, nullptr, nullptr, cosines + head.angles, sines + head.angles, d, 0, back);
}

// The gradient of x in norm_turn.
template <typename T>
__device__ void norm_turn_back(T *dx, const T *g, const T *x, const T *weight, const T *cosines, const T *sines, unsigned d, unsigned tokens,
                               unsigned pitch, unsigned serves, unsigned far, float eps)
{
    const Head head(d, tokens, pitch, serves, far);
    const unsigned half = d / 2;
    x += head.at, g += head.to, dx += head.to, weight += head.weights;
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

// Of new tokens, as they are projected: queries, behind norm and rotation, to y [B, T, heads, d]; keys, behind the same, and values to
// their slots in caches [B, kv, capacity, d]. Tokens are `q_pitch` and `kv_pitch` numbers apart. Their slots are those from `at` on, or
// those given, `slots_far` apart for two rows of the batch. A block for each token and each head of the three.
template <typename T>
__device__ void turn_put(T *y, T *keys, T *values, const T *q, const T *k, const T *v, const T *q_weight, const T *q_bias,
                         const T *k_weight, const T *k_bias, const T *cosines, const T *sines, const unsigned *slots, unsigned heads,
                         unsigned kv, unsigned d, unsigned tokens, unsigned q_pitch, unsigned kv_pitch, unsigned capacity, unsigned at,
                         unsigned q_serves, unsigned k_serves, unsigned far, unsigned slots_far, float eps)
{
    const size_t token = blockIdx.x, b = token / tokens, t = token % tokens, angles = b * far + t * (d / 2);
    if (blockIdx.y < heads) {
        const unsigned head = blockIdx.y, row = head / q_serves * d;
        turned(y + (token * heads + head) * d, q + token * q_pitch + head * d, q_weight ? q_weight + row : nullptr, q_bias + row,
               cosines + angles, sines + angles, d, eps, 1);
        return;
    }
    const unsigned head = (blockIdx.y - heads) % kv, row = head / k_serves * d;
    const size_t to = ((b * kv + head) * capacity + (slots ? slots[b * slots_far + t] : at + t)) * d, from = token * kv_pitch + head * d;
    if (blockIdx.y < heads + kv) {
        turned(keys + to, k + from, k_weight ? k_weight + row : nullptr, k_bias + row, cosines + angles, sines + angles, d, eps, 1);
        return;
    }
    ALONG(i, d) values[to + i] = v[from + i];
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

// Four numbers that are read at once.
template <typename T> struct alignas(4 * sizeof(T)) Four {
    T of[4];
};

// Of attention of a few queries: the widest head, queries of a block, slots that a warp reads ahead, and warps.
constexpr unsigned WIDEST = 128, QUERIES = 4, AHEAD = 4, WARPS = 16;

// What queries [B, T, heads, d] get of keys and values [B, kv, slots, d], heads of which are `pitch` numbers apart: o [B, T, heads, d]. A
// block for each row of the batch and head, and each QUERIES queries; its warps take turns at the slots. Limits are those of softmax.
template <typename T>
__device__ void attend(T *o, const T *q, const T *keys, const T *values, const unsigned *first, const unsigned *last, unsigned heads,
                       unsigned share, unsigned tokens, unsigned slots, unsigned d, unsigned pitch, unsigned first_far,
                       unsigned first_near, unsigned last_far, unsigned last_near, float scale)
{
    constexpr unsigned PIECES = WIDEST / WARP / 4;
    __shared__ float tops[WARPS], totals[WARPS], parts[WARPS][WIDEST];
    const unsigned b = blockIdx.x / heads, head = blockIdx.x % heads, begin = blockIdx.y * QUERIES;
    const unsigned warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const size_t cache = ((size_t)b * (heads / share) + head / share) * pitch;
    keys += cache, values += cache;

    float query[QUERIES][PIECES][4], mixed[QUERIES][PIECES][4] = {}, top[QUERIES], all[QUERIES] = {};
    unsigned from[QUERIES], until[QUERIES], least = slots, end = 0;
    UNROLL for (unsigned i = 0; i < QUERIES; i++) {
        const unsigned t = begin + i;
        top[i] = -INFINITY;
        // None, of a query that is not there.
        from[i] = slots, until[i] = 0;
        if (t < tokens) {
            from[i] = first ? first[b * first_far + t * first_near] : 0;
            until[i] = (last ? last[b * last_far + t * last_near] : slots - 1) + 1;
        }
        least = from[i] < least ? from[i] : least;
        end = until[i] > end ? until[i] : end;
        UNROLL for (unsigned piece = 0; piece < PIECES; piece++) {
            const unsigned at = (piece * WARP + lane) * 4;
            UNROLL for (unsigned e = 0; e < 4; e++)
                query[i][piece][e] = t < tokens && at < d ? read(q[(((size_t)b * tokens + t) * heads + head) * d + at + e]) * scale : 0;
        }
    }

    // The same slots to the same warp, wherever the first that is seen is: so a token gets the same whatever is asked beside it.
    for (unsigned slot = (least / (warps * AHEAD) * warps + warp) * AHEAD; slot < end; slot += warps * AHEAD) {
        Four<T> k[AHEAD][PIECES] = {}, v[AHEAD][PIECES] = {};
        UNROLL for (unsigned a = 0; a < AHEAD; a++)
            UNROLL for (unsigned piece = 0; piece < PIECES; piece++) {
                const unsigned at = (piece * WARP + lane) * 4;
                if (slot + a < end && at < d) {
                    k[a][piece] = *(const Four<T> *)(keys + (size_t)(slot + a) * d + at);
                    v[a][piece] = *(const Four<T> *)(values + (size_t)(slot + a) * d + at);
                }
            }
        UNROLL for (unsigned a = 0; a < AHEAD; a++)
            UNROLL for (unsigned i = 0; i < QUERIES; i++) {
                if (slot + a < from[i] || slot + a >= until[i]) continue;
                float score = 0;
                UNROLL for (unsigned piece = 0; piece < PIECES; piece++)
                    UNROLL for (unsigned e = 0; e < 4; e++)
                        if ((piece * WARP + lane) * 4 < d) score += query[i][piece][e] * read(k[a][piece].of[e]);
                score = of_warp(score, Sum());
                const float higher = score > top[i] ? score : top[i], kept = expf(top[i] - higher), p = expf(score - higher);
                top[i] = higher;
                all[i] = all[i] * kept + p;
                UNROLL for (unsigned piece = 0; piece < PIECES; piece++)
                    UNROLL for (unsigned e = 0; e < 4; e++)
                        if ((piece * WARP + lane) * 4 < d)
                            mixed[i][piece][e] = mixed[i][piece][e] * kept + p * read(v[a][piece].of[e]);
            }
    }

    UNROLL for (unsigned i = 0; i < QUERIES; i++) {
        if (begin + i >= tokens) break;
        __syncthreads();
        if (lane == 0) tops[warp] = top[i], totals[warp] = all[i];
        UNROLL for (unsigned piece = 0; piece < PIECES; piece++)
            UNROLL for (unsigned e = 0; e < 4; e++)
                if ((piece * WARP + lane) * 4 < d) parts[warp][(piece * WARP + lane) * 4 + e] = mixed[i][piece][e];
        __syncthreads();
        float highest = -INFINITY, total = 0;
        for (unsigned w = 0; w < warps; w++) highest = Most()(highest, tops[w]);
        for (unsigned w = 0; w < warps; w++) total += totals[w] * expf(tops[w] - highest);
        ALONG(j, d) {
            float sum = 0;
            for (unsigned w = 0; w < warps; w++) sum += parts[w][j] * expf(tops[w] - highest);
            write(o + (((size_t)b * tokens + begin + i) * heads + head) * d + j, sum / total);
        }
    }
}

// ---- gates ----

// Rows of gate and up of `width` numbers are `pitch` apart; y has none between.
template <typename T>
__device__ void silu_mul(T *y, const T *gate, const T *up, size_t n, unsigned width, unsigned pitch)
{
    EACH(i, n)
    {
        const size_t at = pitch == width ? i : i / width * pitch + i % width;
        const float x = read(gate[at]);
        write(y + i, x / (1 + expf(-x)) * read(up[at]));
    }
}

// The gradients of gate and, behind it, of up.
template <typename T>
__device__ void silu_mul_back(T *both, const T *g, const T *gate, const T *up, size_t n, unsigned width, unsigned pitch)
{
    EACH(i, n)
    {
        const size_t at = pitch == width ? i : i / width * pitch + i % width;
        const float x = read(gate[at]), s = 1 / (1 + expf(-x));
        write(both + i, read(g[i]) * read(up[at]) * s * (1 + x * (1 - s)));
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

// Rows of a table [.., width] by their numbers, of which there are n: in their order, and again for each n blocks more. With `of` they are
// numbers of numbers. A block for each row.
template <typename T>
__device__ void rows(T *y, const T *table, const unsigned *ids, const unsigned *of, unsigned n, unsigned width)
{
    const unsigned id = ids[blockIdx.x % n];
    const size_t from = (size_t)(of ? of[id] : id) * width, to = (size_t)blockIdx.x * width;
    ALONG(i, width) y[to + i] = table[from + i];
}

// ---- queries and keys by cosines: channels 2j and 2j + 1 turned together, f32 ----

// Heads of x [B, T, pitch] at `first`, of length `strengths`, to y [B, T, heads, d]; angles are [T, d / 2]. A block for each token and
// head.
extern "C" __global__ void __launch_bounds__(512) cosine_turn_f32(float *y, const float *x, const float *strengths, const float *cosines, const float *sines,
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

// Of projections x [B, T, 3 heads d]: queries, of length `strengths` and turned, to q [B, T, heads, d]; keys, of length one and turned, and
// values to slots from `at` on of caches [B, heads, capacity, d]. A block for each token and head of the three.
template <typename T>
__device__ void cosine_put(T *q, T *keys, T *values, const float *x, const float *strengths, const float *cosines, const float *sines,
                           unsigned heads, unsigned d, unsigned tokens, unsigned capacity, unsigned at)
{
    const unsigned token = blockIdx.x, head = blockIdx.y % heads, part = blockIdx.y / heads, t = token % tokens;
    x += ((size_t)token * 3 * heads + blockIdx.y) * d, cosines += (size_t)t * (d / 2), sines += (size_t)t * (d / 2);
    T *to = part == 0 ? q + ((size_t)token * heads + head) * d
                      : (part == 1 ? keys : values) + (((size_t)(token / tokens) * heads + head) * capacity + at + t) * d;
    if (part == 2) {
        ALONG(i, d) write(to + i, x[i]);
        return;
    }
    float squares = 0;
    ALONG(i, d) squares += x[i] * x[i];
    const float length = sqrtf(sum(squares)), factor = (part ? 1 : strengths[head]) / (length > 1e-12f ? length : 1e-12f);
    ALONG(j, d / 2) {
        const float c = cosines[j], s = sines[j], p = x[2 * j] * factor, q = x[2 * j + 1] * factor;
        write(to + 2 * j, p * c - q * s);
        write(to + 2 * j + 1, q * c + p * s);
    }
}

// The gradient of x, to its place in dx, and that of the strength for each token and head.
extern "C" __global__ void __launch_bounds__(512) cosine_turn_back_f32(float *dx, float *ds, const float *g, const float *x, const float *strengths,
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

// ---- the optimizer ----

// A step of AdamW: value and means change by a gradient, and `seen` is the value that passes read.
template <typename T>
__device__ void adamw(T *seen, float *value, float *mean, float *square, const float *gradient, size_t n, float scale, float keep_mean,
                      float keep_square, float take_mean, float take_square, float root, float rate, float kept)
{
    EACH(i, n)
    {
        const float g = gradient[i] * scale;
        const float m = keep_mean * mean[i] + take_mean * g, s = keep_square * square[i] + take_square * g * g;
        const float v = value[i] * kept - rate * m / (sqrtf(s) / root + 1e-8f);
        mean[i] = m;
        square[i] = s;
        value[i] = v;
        write(seen + i, v);
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
extern "C" __global__ void __launch_bounds__(512) scores_f32(float *y, const float *logits, unsigned codes, unsigned rows, unsigned k, float scale, float temperature)
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

// For each of some places of each picture the place of the largest of scores + noise, the first of equal ones; `unsound` where the
// scores are not numbers. Each picture has rows of scores, the last of which is that of all places behind; of noise those from `at` on, of
// `far`, or those given. A block for each place.
extern "C" __global__ void __launch_bounds__(512) draw_f32(unsigned *drawn, const float *scores, const float *noise, const unsigned *of, unsigned codes,
                                    unsigned places, unsigned rows, unsigned far, unsigned at, unsigned unsound)
{
    const unsigned picture = blockIdx.x / places, place = blockIdx.x % places;
    const float *x = scores + ((size_t)picture * rows + (place < rows ? place : rows - 1)) * codes;
    const float *more = noise + (of ? of[blockIdx.x] : (size_t)picture * far + at + place) * codes;
    float top = -INFINITY, all = 0;
    ALONG(i, codes) {
        top = Most()(top, x[i] + more[i]);
        all += x[i];
    }
    top = most(top);
    all = sum(all);
    // Counted from the end, so that the largest is the first.
    unsigned first = 0;
    ALONG(i, codes)
        if (x[i] + more[i] == top) first = Most()(first, codes - i);
    first = of_block(first, 0u, Most());
    if (threadIdx.x == 0) drawn[blockIdx.x] = all != all || first == 0 ? unsound : codes - first;
}

// Draws places of pictures anew by maximal coupling, see src/sample/coupling.rs. Each picture has n rows of scores, the probabilities of
// which are written to p; the last is that of all places behind, too. With q the drafts of the first n places, which were drawn from its
// rows `from`, are kept where the rule says so. Random numbers are whole ones below 2^24. A block for each place.
extern "C" __global__ void __launch_bounds__(512) couple_f32(unsigned *drawn, float *p, const float *scores, const float *q,
                                                              const unsigned *drafts, const unsigned *from, const unsigned *keep,
                                                              const unsigned *anew, const unsigned *behind, unsigned codes,
                                                              unsigned places, unsigned n, unsigned unsound)
{
    __shared__ float sums[512];
    const unsigned picture = blockIdx.x / places, place = blockIdx.x % places;
    const bool guessed = place >= n;
    const size_t row = (size_t)picture * n + (guessed ? n - 1 : place);
    const float *x = scores + row * codes, *was = guessed || !q ? nullptr : q + (size_t)from[row] * codes;
    const float step = 1.0f / 16777216;
    float top = -INFINITY, all = 0, sound = 0;
    ALONG(i, codes) {
        top = Most()(top, x[i]);
        sound += x[i];
    }
    top = most(top);
    sound = sum(sound);
    ALONG(i, codes) all += expf(x[i] - top);
    all = sum(all);
    if (!guessed) ALONG(i, codes) p[row * codes + i] = expf(x[i] - top) / all;

    // Each thread has codes that follow each other, and the sums of the threads before it.
    const unsigned each = (codes + blockDim.x - 1) / blockDim.x;
    const unsigned begin = threadIdx.x * each < codes ? threadIdx.x * each : codes;
    const unsigned end = begin + each < codes ? begin + each : codes;
    float own = 0, before = 0, total = 0;
    for (unsigned i = begin; i < end; i++) {
        const float more = expf(x[i] - top) / all - (was ? was[i] : 0);
        own += more > 0 ? more : 0;
    }
    sums[threadIdx.x] = own;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x; i++) {
        if (i == threadIdx.x) before = total;
        total += sums[i];
    }
    const unsigned whole = guessed ? behind[picture * (places - n) + place - n] : anew[row];
    const float target = total * (whole * step + 0.5f * step);
    // The first whose running sum is beyond the target; where rounding leaves none, the last that has a part in it.
    unsigned first = 0, last = 0;
    for (unsigned i = begin; i < end; i++) {
        const float more = expf(x[i] - top) / all - (was ? was[i] : 0);
        if (!(more > 0)) continue;
        before += more;
        last = i + 1;
        if (before > target) first = Most()(first, codes - i);
    }
    first = of_block(first, 0u, Most());
    last = of_block(last, 0u, Most());
    if (threadIdx.x != 0) return;
    unsigned code = first ? codes - first : last ? last - 1 : 0;
    if (was) {
        const unsigned draft = drafts[row];
        if ((keep[row] * step + 0.5f * step) * was[draft] < expf(x[draft] - top) / all) code = draft;
    }
    drawn[blockIdx.x] = sound != sound ? unsound : code;
}

// ---- for numbers of both kinds ----

#define KERNEL(name, parameters, arguments) \
    extern "C" __global__ void __launch_bounds__(512) name##_f32 parameters(float) { name<float> arguments; } \
    extern "C" __global__ void __launch_bounds__(512) name##_bf16 parameters(Bf16) { name<Bf16> arguments; }
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
    (T *y, const T *x, const T *weight, const T *bias, const T *cosines, const T *sines, unsigned d, unsigned tokens, unsigned pitch, \
     unsigned serves, unsigned far, float eps)
KERNEL(norm_turn, P, (y, x, weight, bias, cosines, sines, d, tokens, pitch, serves, far, eps))
#undef P
#define P(T) \
    (T *y, const T *x, const T *cosines, const T *sines, unsigned d, unsigned tokens, unsigned pitch, unsigned far, float back)
KERNEL(turn, P, (y, x, cosines, sines, d, tokens, pitch, far, back))
#undef P
#define P(T) \
    (T *dx, const T *g, const T *x, const T *weight, const T *cosines, const T *sines, unsigned d, unsigned tokens, unsigned pitch, \
     unsigned serves, unsigned far, float eps)
KERNEL(norm_turn_back, P, (dx, g, x, weight, cosines, sines, d, tokens, pitch, serves, far, eps))
#undef P
#define P(T) \
    (T *y, T *keys, T *values, const T *q, const T *k, const T *v, const T *q_weight, const T *q_bias, const T *k_weight, \
     const T *k_bias, const T *cosines, const T *sines, const unsigned *slots, unsigned heads, unsigned kv, unsigned d, unsigned tokens, \
     unsigned q_pitch, unsigned kv_pitch, unsigned capacity, unsigned at, unsigned q_serves, unsigned k_serves, unsigned far, \
     unsigned slots_far, float eps)
KERNEL(turn_put, P,
       (y, keys, values, q, k, v, q_weight, q_bias, k_weight, k_bias, cosines, sines, slots, heads, kv, d, tokens, q_pitch, kv_pitch,
        capacity, at, q_serves, k_serves, far, slots_far, eps))
#undef P
#define P(T) \
    (T *o, const T *q, const T *keys, const T *values, const unsigned *first, const unsigned *last, unsigned heads, unsigned share, \
     unsigned tokens, unsigned slots, unsigned d, unsigned pitch, unsigned first_far, unsigned first_near, unsigned last_far, \
     unsigned last_near, float scale)
KERNEL(attend, P,
       (o, q, keys, values, first, last, heads, share, tokens, slots, d, pitch, first_far, first_near, last_far, last_near, scale))
#undef P
#define P(T) \
    (T *p, const T *scores, const unsigned *first, const unsigned *last, unsigned heads, unsigned tokens, unsigned slots, \
     unsigned first_far, unsigned first_near, unsigned last_far, unsigned last_near, float scale)
KERNEL(softmax, P, (p, scores, first, last, heads, tokens, slots, first_far, first_near, last_far, last_near, scale))
#undef P
#define P(T) (T *ds, const T *dp, const T *p, unsigned slots, float scale)
KERNEL(softmax_back, P, (ds, dp, p, slots, scale))
#undef P
#define P(T) (T *y, const T *gate, const T *up, size_t n, unsigned width, unsigned pitch)
KERNEL(silu_mul, P, (y, gate, up, n, width, pitch))
#undef P
#define P(T) (T *both, const T *g, const T *gate, const T *up, size_t n, unsigned width, unsigned pitch)
KERNEL(silu_mul_back, P, (both, g, gate, up, n, width, pitch))
#undef P
#define P(T) (T *y, const T *table, const unsigned *ids, const unsigned *of, unsigned n, unsigned width)
KERNEL(rows, P, (y, table, ids, of, n, width))
#undef P
#define P(T) (T *y, const T *before, const T *x, const T *gate, size_t n, unsigned width, size_t numbers)
KERNEL(gated, P, (y, before, x, gate, n, width, numbers))
#undef P
#define P(T) \
    (T *q, T *keys, T *values, const float *x, const float *strengths, const float *cosines, const float *sines, unsigned heads, \
     unsigned d, unsigned tokens, unsigned capacity, unsigned at)
KERNEL(cosine_put, P, (q, keys, values, x, strengths, cosines, sines, heads, d, tokens, capacity, at))
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
    (T *seen, float *value, float *mean, float *square, const float *gradient, size_t n, float scale, float keep_mean, \
     float keep_square, float take_mean, float take_square, float root, float rate, float kept)
KERNEL(adamw, P, (seen, value, mean, square, gradient, n, scale, keep_mean, keep_square, take_mean, take_square, root, rate, kept))
#undef P
