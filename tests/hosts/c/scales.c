/* Tokens of several grids: in and out, and through a model that draws scale after scale. The first argument is that model. */
#include "check.h"

enum { SCALES = 7, CODES = 521 };
static const uint32_t SIDES[SCALES] = {1, 2, 4, 6, 8, 12, 16};

static void grids_are_kept(void) {
    const uint32_t codes[7] = {9, 1, 2, 3, 4, 5, 6}, widths[2] = {1, 3}, heights[2] = {1, 2};
    sitter_tokens *tokens = NULL;
    size_t count = 0, needed = 0;
    uint32_t width = 0, height = 0, out[7];
    EXPECT(SITTER_OK, sitter_tokens_from_grids(codes, widths, heights, 2, &tokens, &err));
    EXPECT(SITTER_OK, sitter_tokens_grid_count(tokens, &count, &err));
    CHECK(count == 2);
    EXPECT(SITTER_OK, sitter_tokens_grid_at(tokens, 0, &width, &height, &err));
    CHECK(width == 1 && height == 1);
    EXPECT(SITTER_OK, sitter_tokens_grid_at(tokens, 1, &width, &height, &err));
    CHECK(width == 3 && height == 2);
    EXPECT(SITTER_OK, sitter_tokens_grid(tokens, &width, &height, &err));
    CHECK(width == 3 && height == 2);
    EXPECT(SITTER_OK, sitter_tokens_copy(tokens, out, 7, &needed, &err));
    CHECK(needed == 7 && memcmp(out, codes, sizeof codes) == 0);
    EXPECT(SITTER_E_INVALID_ARGUMENT, sitter_tokens_grid_at(tokens, 2, &width, &height, &err));
    EXPECT(SITTER_E_BUFFER_TOO_SMALL, sitter_tokens_copy(tokens, out, 6, &needed, &err));
    sitter_tokens_free(tokens);

    EXPECT(SITTER_E_INVALID_ARGUMENT, sitter_tokens_from_grids(codes, widths, heights, 0, &tokens, &err));
    EXPECT(SITTER_E_INVALID_ARGUMENT, sitter_tokens_from_grids(codes, widths, heights, SIZE_MAX, &tokens, &err));
    EXPECT(SITTER_E_NULL_POINTER, sitter_tokens_from_grids(codes, NULL, heights, 2, &tokens, &err));
    CHECK(tokens == NULL);
    {
        const uint32_t none[2] = {0, 3}, vast[2] = {UINT32_MAX, UINT32_MAX};
        EXPECT(SITTER_E_INVALID_ARGUMENT, sitter_tokens_from_grids(codes, none, heights, 2, &tokens, &err));
        EXPECT(SITTER_E_INVALID_ARGUMENT, sitter_tokens_from_grids(codes, vast, vast, 2, &tokens, &err));
    }
    /* What was made of one grid has one. */
    tokens = four_tokens();
    EXPECT(SITTER_OK, sitter_tokens_grid_count(tokens, &count, &err));
    CHECK(count == 1);
    sitter_tokens_free(tokens);
}

/* Notes the side of what is drawn so far, from inside the call. */
struct watcher {
    sitter_run *run;
    uint32_t sides[SCALES];
    int seen, stop_at;
};

static int32_t note(void *data, const sitter_event *event) {
    struct watcher *watcher = data;
    sitter_tokens *tokens = NULL;
    uint32_t width = 0, height = 0;
    /* Where nothing happens for a while, an event comes again, or one before the first. */
    if (event->done == 0) {
        return SITTER_CONTINUE;
    }
    CHECK(event->stage == SITTER_STAGE_SAMPLE && event->total == CODES);
    EXPECT(SITTER_OK, sitter_run_tokens(watcher->run, 0, &tokens, &err));
    EXPECT(SITTER_OK, sitter_tokens_grid(tokens, &width, &height, &err));
    sitter_tokens_free(tokens);
    if (watcher->seen == 0 || watcher->sides[watcher->seen - 1] != width) {
        CHECK(watcher->seen < SCALES);
        watcher->sides[watcher->seen++] = width;
    }
    return watcher->seen == watcher->stop_at ? !SITTER_CONTINUE : SITTER_CONTINUE;
}

static sitter_tokens *drawn(const sitter_model *model, const sitter_sample_options *options, int stop_at) {
    struct watcher watcher = {NULL, {0}, 0, stop_at};
    sitter_tokens *tokens = NULL;
    EXPECT(SITTER_OK, sitter_run_new(&watcher.run, &err));
    EXPECT(SITTER_OK, sitter_run_set_callback(watcher.run, note, &watcher, &err));
    EXPECT(stop_at ? SITTER_E_CANCELLED : SITTER_OK,
           sitter_tokens_sample(model, "a red dog", NULL, 0, options, watcher.run, &tokens, 1, &err));
    CHECK(watcher.seen == (stop_at ? stop_at : SCALES));
    CHECK(memcmp(watcher.sides, SIDES, (size_t)watcher.seen * sizeof *SIDES) == 0);
    CHECK((tokens == NULL) == (stop_at != 0));
    sitter_run_free(watcher.run);
    return tokens;
}

static void a_picture_goes_through_codes_and_back(const sitter_model *model) {
    sitter_sample_options *options = NULL;
    sitter_tokens *tokens, *copy = NULL, *encoded = NULL;
    const float guidance[3] = {4.0f, 3.0f, 2.0f};
    float too_many[8] = {0};
    uint32_t codes[CODES];
    size_t count = 0, needed = 0;
    double scores[3];
    const sitter_tokens *scored[3];
    sitter_image *picture = NULL, *again = NULL;
    static uint8_t pixels[64 * 64 * 3], other[64 * 64 * 3];

    EXPECT(SITTER_OK, sitter_sample_options_new(model, &options, &err));
    EXPECT(SITTER_OK, sitter_sample_options_set_guidance_by_scale(options, guidance, 3, &err));
    tokens = drawn(model, options, 0);
    CHECK(drawn(model, options, 3) == NULL);
    EXPECT(SITTER_OK, sitter_tokens_grid_count(tokens, &count, &err));
    EXPECT(SITTER_OK, sitter_tokens_copy(tokens, codes, CODES, &needed, &err));
    CHECK(count == SCALES && needed == CODES);
    EXPECT(SITTER_OK, sitter_tokens_from_grids(codes, SIDES, SIDES, SCALES, &copy, &err));
    EXPECT(SITTER_OK, sitter_image_decode(model, tokens, NULL, &picture, &err));
    EXPECT(SITTER_OK, sitter_image_decode(model, copy, NULL, &again, &err));
    EXPECT(SITTER_OK, sitter_image_copy_rgb8(picture, pixels, sizeof pixels, &needed, &err));
    EXPECT(SITTER_OK, sitter_image_copy_rgb8(again, other, sizeof other, &needed, &err));
    CHECK(needed == sizeof pixels && memcmp(pixels, other, sizeof pixels) == 0);
    EXPECT(SITTER_OK, sitter_tokens_encode(model, picture, 0, NULL, &encoded, &err));
    EXPECT(SITTER_OK, sitter_tokens_grid_count(encoded, &count, &err));
    CHECK(count == SCALES);
    scored[0] = tokens, scored[1] = copy, scored[2] = encoded;
    EXPECT(SITTER_OK, sitter_tokens_score(model, "a red dog", NULL, 0, scored, 3, NULL, scores, &err));
    CHECK(scores[0] > 0 && scores[0] == scores[1] && scores[2] > 0 && scores[2] < 5);

    EXPECT(SITTER_OK, sitter_sample_options_set_guidance_by_scale(options, too_many, 8, &err));
    sitter_tokens_free(copy);
    EXPECT(SITTER_E_INVALID_ARGUMENT,
           sitter_tokens_sample(model, "a dog", NULL, 0, options, NULL, &copy, 1, &err));
    sitter_tokens_free(tokens);
    sitter_tokens_free(encoded);
    sitter_image_free(picture);
    sitter_image_free(again);
    sitter_sample_options_free(options);
}

int main(int argc, char **argv) {
    sitter_model_options *options = NULL;
    sitter_model *model = NULL;
    CHECK(argc == 2);
    grids_are_kept();
    EXPECT(SITTER_OK, sitter_model_options_new(&options, &err));
    EXPECT(SITTER_OK, sitter_model_options_set_text_encoder(options, "unload", &err));
    EXPECT(SITTER_OK, sitter_model_open(NULL, argv[1], options, NULL, &model, &err));
    a_picture_goes_through_codes_and_back(model);
    sitter_model_options_free(options);
    sitter_model_free(model);
    return 0;
}
