/* In a forked child the parent's objects give SITTER_E_FORKED, and nothing hangs. */
#include "verbs.h"

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void in_the_child(const sitter_engine *engine, sitter_model *model, sitter_run *run, sitter_tokens *tokens) {
    sitter_image *image = NULL;
    sitter_model *opened = NULL;
    sitter_event event;
    uint32_t codes[4];
    EXPECT(SITTER_E_FORKED, sitter_image_decode(model, tokens, NULL, &image, &err));
    EXPECT(SITTER_E_FORKED, sitter_model_open(engine, "fake:", NULL, NULL, &opened, &err));
    EXPECT(SITTER_E_FORKED, sitter_model_open(NULL, "fake:", NULL, run, &opened, &err));
    EXPECT(SITTER_E_FORKED, sitter_tokens_copy(tokens, codes, 4, NULL, &err));
    EXPECT(SITTER_E_FORKED, sitter_run_snapshot(run, &event, sizeof event, &err));
    CHECK(image == NULL && opened == NULL);
    CHECK(sitter_model_ref(model) == NULL);
    /* Leaks, so that nothing is taken down that the parent still uses. */
    sitter_model_free(model);
    sitter_tokens_free(tokens);
    sitter_run_free(run);
    sitter_run_cancel(run);
    /* What is made here works here. */
    model = open_model(NULL, "fake:steps=2");
    EXPECT(SITTER_OK, do_verb(TRAIN, NULL, model, NULL, NULL, &err));
    sitter_model_free(model);
}

int main(void) {
    sitter_engine *engine = engine_with(1);
    sitter_model *model = open_model(engine, "fake:steps=2");
    sitter_tokens *tokens = four_tokens();
    sitter_run *run = NULL;
    pid_t child;
    int result = -1;
    EXPECT(SITTER_OK, sitter_run_new(&run, &err));
    EXPECT(SITTER_OK, do_verb(TRAIN, NULL, model, NULL, NULL, &err));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        in_the_child(engine, model, run, tokens);
        /* Becomes another program, so that nobody looks for leaks: what belongs to the parent is leaked on purpose. */
        execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
    }
    CHECK(waitpid(child, &result, 0) == child);
    CHECK(WIFEXITED(result) && WEXITSTATUS(result) == 7);
    EXPECT(SITTER_OK, do_verb(TRAIN, NULL, model, NULL, run, &err));
    sitter_run_free(run);
    sitter_tokens_free(tokens);
    sitter_model_free(model);
    sitter_engine_free(engine);
    return 0;
}
