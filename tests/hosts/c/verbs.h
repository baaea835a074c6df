/* The six long calls, behind one function. */
#ifndef VERBS_H
#define VERBS_H

#include "check.h"

enum verb { OPEN, ENCODE, DECODE, SCORE, SAMPLE, TRAIN, VERBS };

/* Does a verb with inputs of its own; checks that there is an output if and only if it succeeded. OPEN opens `name`. */
static inline sitter_status do_verb(enum verb verb, const sitter_engine *engine, const sitter_model *model,
                                    const char *name, sitter_run *run, sitter_error **err) {
    sitter_status status = SITTER_E_INTERNAL;
    int made = 0;
    switch (verb) {
    case OPEN: {
        sitter_model *out = NULL;
        status = sitter_model_open(engine, name, NULL, run, &out, err);
        made = out != NULL;
        sitter_model_free(out);
        break;
    }
    case ENCODE: {
        sitter_image *image = grey_image();
        sitter_tokens *out = NULL;
        status = sitter_tokens_encode(model, image, 0, run, &out, err);
        made = out != NULL;
        sitter_tokens_free(out);
        sitter_image_free(image);
        break;
    }
    case DECODE: {
        sitter_tokens *tokens = four_tokens();
        sitter_image *out = NULL;
        status = sitter_image_decode(model, tokens, run, &out, err);
        made = out != NULL;
        sitter_image_free(out);
        sitter_tokens_free(tokens);
        break;
    }
    case SCORE: {
        sitter_tokens *tokens = four_tokens();
        const sitter_tokens *pictures[2] = {tokens, tokens};
        double scores[2] = {-1.0, -1.0};
        status = sitter_tokens_score(model, "a fox", NULL, 0, pictures, 2, run, scores, err);
        made = scores[0] != -1.0 && scores[1] != -1.0;
        sitter_tokens_free(tokens);
        break;
    }
    case SAMPLE: {
        sitter_tokens *out[3] = {NULL, NULL, NULL};
        status = sitter_tokens_sample(model, "a fox", NULL, 0, NULL, run, out, 3, err);
        made = out[0] != NULL && out[1] != NULL && out[2] != NULL;
        CHECK(made || (out[0] == NULL && out[1] == NULL && out[2] == NULL));
        for (int i = 0; i < 3; i++) {
            sitter_tokens_free(out[i]);
        }
        break;
    }
    default: {
        sitter_dataset *dataset = small_dataset();
        sitter_train_options *options = fox_options(NULL);
        sitter_subject *out = NULL;
        status = sitter_subject_train(model, dataset, options, run, &out, err);
        made = out != NULL;
        sitter_subject_free(out);
        sitter_train_options_free(options);
        sitter_dataset_free(dataset);
        break;
    }
    }
    CHECK(made == (status == SITTER_OK));
    return status;
}

static inline sitter_run *run_with(sitter_event_fn callback, void *user_data) {
    sitter_run *run = NULL;
    EXPECT(SITTER_OK, sitter_run_new(&run, &err));
    EXPECT(SITTER_OK, sitter_run_set_callback(run, callback, user_data, &err));
    return run;
}

static inline sitter_engine *engine_with(uint32_t max_jobs) {
    sitter_engine *engine = NULL;
    sitter_engine_options *options = NULL;
    EXPECT(SITTER_OK, sitter_engine_options_new(&options, &err));
    EXPECT(SITTER_OK, sitter_engine_options_set_threads(options, 1, &err));
    EXPECT(SITTER_OK, sitter_engine_options_set_max_jobs(options, max_jobs, &err));
    EXPECT(SITTER_OK, sitter_engine_new(options, &engine, &err));
    sitter_engine_options_free(options);
    return engine;
}

#endif
