/* Handles in every order, runs in every state, callbacks of every kind: on the fake model, which takes no time. */
#include "verbs.h"

/* Every order of freeing five objects that refer to each other; what is left goes on working. */
static void free_in_every_order(void) {
    for (int order = 0; order < 120; order++) {
        int left[5] = {0, 1, 2, 3, 4}, code = order;
        sitter_engine *engine = engine_with(1);
        sitter_model *model = open_model(engine, "fake:steps=1");
        sitter_dataset *dataset = small_dataset();
        sitter_train_options *options = fox_options(model);
        sitter_subject *subject = NULL;
        sitter_tokens *tokens = NULL;
        sitter_image *image = NULL;
        EXPECT(SITTER_OK, sitter_subject_train(model, dataset, options, NULL, &subject, &err));
        EXPECT(SITTER_OK, sitter_tokens_sample(model, "x", (const sitter_subject *const *)&subject, 1, NULL, NULL, &tokens, 1, &err));
        EXPECT(SITTER_OK, sitter_image_decode(model, tokens, NULL, &image, &err));
        sitter_train_options_free(options);
        sitter_dataset_free(dataset);
        for (int count = 5; count > 0; count--) {
            int chosen = code % count, which = left[chosen];
            code /= count;
            left[chosen] = left[count - 1];
            switch (which) {
            case 0: sitter_engine_free(engine), engine = NULL; break;
            case 1: sitter_model_free(model), model = NULL; break;
            case 2: sitter_subject_free(subject), subject = NULL; break;
            case 3: sitter_tokens_free(tokens), tokens = NULL; break;
            default: sitter_image_free(image), image = NULL; break;
            }
            if (model != NULL && tokens != NULL) {
                EXPECT(SITTER_OK, do_verb(DECODE, NULL, model, NULL, NULL, &err));
            }
            if (subject != NULL) {
                size_t needed = 0;
                EXPECT(SITTER_OK, sitter_subject_info_json(subject, NULL, 0, &needed, &err));
                CHECK(needed > 2);
            }
            if (image != NULL) {
                uint8_t pixels[12];
                EXPECT(SITTER_OK, sitter_image_copy_rgb8(image, pixels, sizeof pixels, NULL, &err));
            }
        }
    }
}

static void references_are_counted(void) {
    sitter_engine *engine = engine_with(1);
    sitter_model *model = open_model(engine, "fake:");
    sitter_tokens *tokens = four_tokens();
    sitter_image *image = grey_image();
    CHECK(sitter_engine_ref(engine) == engine && sitter_model_ref(model) == model);
    CHECK(sitter_tokens_ref(tokens) == tokens && sitter_image_ref(image) == image);
    CHECK(sitter_model_ref(NULL) == NULL);
    for (int i = 0; i < 2; i++) {
        EXPECT(SITTER_OK, do_verb(ENCODE, NULL, model, NULL, NULL, &err));
        sitter_engine_free(engine);
        sitter_model_free(model);
        sitter_tokens_free(tokens);
        sitter_image_free(image);
    }
}

struct counted {
    int seen, stop_at;
    int32_t answer;
};

static int32_t stop_at(void *user_data, const sitter_event *event) {
    struct counted *c = user_data;
    CHECK(event->struct_size >= sizeof *event && event->done <= event->total);
    return ++c->seen == c->stop_at ? c->answer : SITTER_CONTINUE;
}

/* Whichever event the callback stops at, the first, the last or a heartbeat, the call ends without an output. */
static void cancel_at_every_event(void) {
    sitter_model *model = open_model(NULL, "fake:steps=3");
    for (int verb = OPEN; verb < VERBS; verb++) {
        for (int k = 1;; k++) {
            struct counted c = {0, k, 0};
            sitter_run *run = run_with(stop_at, &c);
            sitter_error *err = NULL;
            sitter_status status = do_verb(verb, NULL, model, "fake:steps=3,open=1", run, &err);
            CHECK(status == (c.seen >= k ? SITTER_E_CANCELLED : SITTER_OK));
            sitter_error_free(err);
            sitter_run_free(run);
            if (status == SITTER_OK) {
                CHECK(k > 3);
                break;
            }
            EXPECT(SITTER_OK, do_verb(verb, NULL, model, "fake:", NULL, &err));
        }
    }
    sitter_model_free(model);
}

/* What broken bindings return when their function throws, and other values that are not SITTER_CONTINUE. */
static void only_continue_goes_on(void) {
    const int32_t answers[] = {0, -1, 2, 3, 256, 257, 2003165136, INT32_MIN, INT32_MAX};
    sitter_model *model = open_model(NULL, "fake:steps=3");
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        for (int verb = OPEN; verb < VERBS; verb++) {
            struct counted c = {0, 2, 0};
            sitter_run *run;
            c.answer = answers[i];
            run = run_with(stop_at, &c);
            EXPECT(SITTER_E_CANCELLED, do_verb(verb, NULL, model, "fake:steps=3,open=1", run, &err));
            sitter_run_free(run);
        }
    }
    sitter_model_free(model);
}

struct inside {
    sitter_model *model;
    sitter_run *run;
    sitter_image *image;
    int freed, events;
};

/* Work is refused in a callback, looking and freeing is not. */
static int32_t call_back_in(void *user_data, const sitter_event *event) {
    struct inside *in = user_data;
    sitter_event newest;
    uint32_t width = 0, height = 0;
    char info[512];
    in->events++;
    for (int verb = OPEN; verb < VERBS; verb++) {
        EXPECT(SITTER_E_REENTRANT, do_verb(verb, NULL, in->model, "fake:", NULL, &err));
    }
    EXPECT(SITTER_OK, sitter_image_size(in->image, &width, &height, &err));
    EXPECT(SITTER_OK, sitter_model_info_json(in->model, info, sizeof info, NULL, &err));
    sitter_model_free(sitter_model_ref(in->model));
    if (!in->freed) {
        EXPECT(SITTER_OK, sitter_run_snapshot(in->run, &newest, sizeof newest, &err));
        CHECK(newest.stage == event->stage && newest.done >= event->done);
        EXPECT(SITTER_E_INVALID_STATE, sitter_run_set_callback(in->run, NULL, NULL, &err));
        sitter_run_free(in->run);
        in->freed = 1;
    }
    return SITTER_CONTINUE;
}

static void callbacks_call_back_in(void) {
    for (int verb = OPEN; verb < VERBS; verb++) {
        struct inside in = {NULL, NULL, NULL, 0, 0};
        in.model = open_model(NULL, "fake:steps=2");
        in.image = grey_image();
        in.run = run_with(call_back_in, &in);
        EXPECT(SITTER_OK, do_verb(verb, NULL, in.model, "fake:steps=2,open=1", in.run, &err));
        CHECK(in.freed && in.events >= 2);
        /* Back outside, work is possible again. */
        EXPECT(SITTER_OK, do_verb(verb, NULL, in.model, "fake:", NULL, &err));
        sitter_image_free(in.image);
        sitter_model_free(in.model);
    }
}

static void a_run_serves_one_call(void) {
    sitter_model *model = open_model(NULL, "fake:steps=1");
    for (int verb = OPEN; verb < VERBS; verb++) {
        sitter_run *run = NULL, *cancelled = NULL;
        EXPECT(SITTER_OK, sitter_run_new(&run, &err));
        EXPECT(SITTER_OK, do_verb(verb, NULL, model, "fake:", run, &err));
        EXPECT(SITTER_E_INVALID_STATE, do_verb(verb, NULL, model, "fake:", run, &err));
        EXPECT(SITTER_E_INVALID_STATE, sitter_run_set_callback(run, stop_at, NULL, &err));
        sitter_run_cancel(run);
        sitter_run_finish_early(run);
        sitter_run_free(run);

        EXPECT(SITTER_OK, sitter_run_new(&cancelled, &err));
        sitter_run_cancel(cancelled);
        sitter_run_cancel(cancelled);
        EXPECT(SITTER_E_CANCELLED, do_verb(verb, NULL, model, "fake:", cancelled, &err));
        sitter_run_free(cancelled);
    }
    sitter_model_free(model);
}

struct finish {
    sitter_run *run;
    uint64_t last;
    int32_t stage;
};

static int32_t finish_at_five(void *user_data, const sitter_event *event) {
    struct finish *f = user_data;
    f->last = event->done;
    f->stage = event->stage;
    if (event->done == 5) {
        sitter_run_finish_early(f->run);
    }
    return SITTER_CONTINUE;
}

static void finishing_early_keeps_the_subject(void) {
    sitter_model *model = open_model(NULL, "fake:steps=1000");
    sitter_dataset *dataset = small_dataset();
    sitter_train_options *options = fox_options(model);
    sitter_subject *subject = NULL;
    struct finish f = {NULL, 0, 0};
    f.run = run_with(finish_at_five, &f);
    EXPECT(SITTER_OK, sitter_subject_train(model, dataset, options, f.run, &subject, &err));
    CHECK(subject != NULL && f.last == 5 && f.stage == SITTER_STAGE_EMBEDDING);
    sitter_subject_free(subject);
    sitter_run_free(f.run);
    sitter_train_options_free(options);
    sitter_dataset_free(dataset);
    sitter_model_free(model);
}

/* A failure or a panic at any step of any verb is a status; the engine serves the next job as if nothing had been. */
static void failures_and_panics_at_every_step(void) {
    sitter_engine *engine = engine_with(1);
    sitter_model *sound = open_model(engine, "fake:steps=1");
    for (int k = 1; k <= 3; k++) {
        for (int panics = 0; panics <= 1; panics++) {
            const sitter_status expected = panics ? SITTER_E_PANIC : SITTER_E_INTERNAL;
            char name[64], opening[80];
            sitter_model *model;
            snprintf(name, sizeof name, "fake:steps=3,%s=%d", panics ? "panic_at" : "fail_at", k);
            snprintf(opening, sizeof opening, "%s,open=1", name);
            model = open_model(engine, name);
            for (int verb = OPEN; verb < VERBS; verb++) {
                struct counted c = {0, 0, 0};
                sitter_run *run = run_with(stop_at, &c);
                EXPECT(expected, do_verb(verb, engine, model, opening, run, &err));
                CHECK(c.seen >= k - 1);
                EXPECT(expected, do_verb(verb, engine, model, opening, NULL, &err));
                EXPECT(SITTER_OK, do_verb(verb, engine, sound, "fake:", NULL, &err));
                sitter_run_free(run);
            }
            sitter_model_free(model);
        }
    }
    sitter_model_free(sound);
    sitter_engine_free(engine);
}

static void drop(void *user_data) {
    ++*(int *)user_data;
}

static void log_line(void *user_data, int32_t level, const char *line) {
    (void)user_data;
    CHECK(level >= SITTER_LOG_ERROR && level <= SITTER_LOG_DEBUG && strchr(line, '\n') == NULL);
}

/* Whatever happens to a log function, its user data is given back once. */
static void user_data_of_the_log_is_dropped_once(void) {
    int first = 0, second = 0, refused = 0;
    char log[64];
    size_t needed = 0;
    sitter_engine_options *options = NULL;
    sitter_engine *engine = NULL;
    sitter_model *model;
    EXPECT(SITTER_OK, sitter_engine_options_new(&options, &err));
    EXPECT(SITTER_OK, sitter_engine_options_set_log_level(options, SITTER_LOG_DEBUG, &err));
    EXPECT(SITTER_OK, sitter_engine_options_set_log(options, log_line, &first, drop, &err));
    EXPECT(SITTER_OK, sitter_engine_options_set_log(options, log_line, &second, drop, &err));
    CHECK(first == 1 && second == 0);
    EXPECT(SITTER_E_NULL_POINTER, sitter_engine_options_set_log(NULL, log_line, &refused, drop, &err));
    CHECK(refused == 1);
    EXPECT(SITTER_OK, sitter_engine_new(options, &engine, &err));
    sitter_engine_options_free(options);
    model = open_model(engine, "fake:steps=1");
    EXPECT(SITTER_OK, sitter_engine_drain_log(engine, log, sizeof log, &needed, &err));
    CHECK(needed >= 1);
    sitter_engine_free(engine);
    CHECK(second == 0); /* the model keeps its engine */
    sitter_model_free(model);
    CHECK(second == 1);

    /* Without an engine, and taken back. */
    first = second = 0;
    EXPECT(SITTER_OK, sitter_engine_options_new(&options, &err));
    EXPECT(SITTER_OK, sitter_engine_options_set_log(options, log_line, &first, drop, &err));
    EXPECT(SITTER_OK, sitter_engine_options_set_log(options, NULL, NULL, NULL, &err));
    CHECK(first == 1);
    EXPECT(SITTER_OK, sitter_engine_options_set_log(options, log_line, &second, drop, &err));
    sitter_engine_options_free(options);
    CHECK(second == 1);
}

/* The two-call form of buffers. */
static void buffers_are_filled_whole_or_not_at_all(void) {
    sitter_tokens *tokens = four_tokens();
    uint32_t codes[5] = {9, 9, 9, 9, 9};
    size_t needed = 0;
    EXPECT(SITTER_OK, sitter_tokens_copy(tokens, NULL, 0, &needed, &err));
    CHECK(needed == 4);
    needed = 0;
    EXPECT(SITTER_E_BUFFER_TOO_SMALL, sitter_tokens_copy(tokens, codes, 3, &needed, &err));
    CHECK(needed == 4 && codes[0] == 9);
    EXPECT(SITTER_OK, sitter_tokens_copy(tokens, codes, 5, &needed, &err));
    CHECK(needed == 4 && codes[0] == 1 && codes[3] == 4 && codes[4] == 9);
    EXPECT(SITTER_OK, sitter_tokens_copy(tokens, codes, 4, NULL, &err));
    EXPECT(SITTER_E_NULL_POINTER, sitter_tokens_copy(tokens, NULL, 0, NULL, &err));
    sitter_tokens_free(tokens);
}

static void an_older_library_is_noticed(void) {
    EXPECT(SITTER_OK, sitter_require_abi(SITTER_ABI_MAJOR, SITTER_ABI_MINOR, &err));
    EXPECT(SITTER_OK, sitter_require_abi(SITTER_ABI_MAJOR, 0, &err));
    EXPECT(SITTER_E_ABI_MISMATCH, sitter_require_abi(SITTER_ABI_MAJOR, SITTER_ABI_MINOR + 1, &err));
    EXPECT(SITTER_E_ABI_MISMATCH, sitter_require_abi(SITTER_ABI_MAJOR + 1, 0, &err));
    EXPECT(SITTER_E_ABI_MISMATCH, sitter_require_abi(0, 0, &err));
}

int main(void) {
    free_in_every_order();
    references_are_counted();
    cancel_at_every_event();
    only_continue_goes_on();
    callbacks_call_back_in();
    a_run_serves_one_call();
    finishing_early_keeps_the_subject();
    failures_and_panics_at_every_step();
    user_data_of_the_log_is_dropped_once();
    buffers_are_filled_whole_or_not_at_all();
    an_older_library_is_noticed();
    return 0;
}
