// Masks of dropout, with the bits of `Dropout::mask` in src/random.rs: Philox4x32 of ten rounds, four numbers a counter. Compiled by
// NVRTC when it is first needed; a test compiles it for the CPU.

extern "C" __global__ void dropout_mask(float *mask, unsigned n, unsigned site, unsigned purpose, unsigned step, unsigned seed_low,
                                        unsigned seed_high, unsigned long long threshold, float kept)
{
    const unsigned block = blockIdx.x * blockDim.x + threadIdx.x;
    if (block >= (n + 3) / 4)
        return;
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
        mask[4 * block + i] = bits[i] < threshold ? kept : 0.0f;
}
