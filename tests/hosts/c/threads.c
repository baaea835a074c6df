/* Runs, jobs and handles from several threads: on the fake model. */
#include "verbs.h"

#include <pthread.h>
#include <time.h>

static void sleep_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static double seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static pthread_t start(void *(*function)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, function, argument) == 0);
    return thread;
}

static void join(pthread_t thread) {
    CHECK(pthread_join(thread, NULL) == 0);
}

/* A number that two threads share. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void put(int *number, int value) {
    pthread_mutex_lock(&lock);
    *number = value;
    pthread_mutex_unlock(&lock);
}

static int look(int *number) {
    int value;
    pthread_mutex_lock(&lock);
    value = *number;
    pthread_mutex_unlock(&lock);
    return value;
}

/* True once the number is set; false if that takes unreasonably long. */
static int wait_for(int *number) {
    for (int i = 0; i < 30000 && look(number) == 0; i++) {
        sleep_ms(1);
    }
    return look(number) != 0;
}

struct cancel {
    sitter_run *run;
    long after_ms;
};

static void *cancel_later(void *argument) {
    struct cancel *c = argument;
    sleep_ms(c->after_ms);
    sitter_run_cancel(c->run);
    return NULL;
}

/* A work that would take 20 s ends when another thread says so, with and without a callback. */
static void cancel_from_another_thread(void) {
    sitter_model *model = open_model(NULL, "fake:steps=20000,step_ms=1");
    for (int i = 0; i < 24; i++) {
        struct cancel c = {NULL, 0};
        pthread_t thread;
        double before = seconds();
        c.after_ms = i % 5;
        EXPECT(SITTER_OK, sitter_run_new(&c.run, &err));
        thread = start(cancel_later, &c);
        EXPECT(SITTER_E_CANCELLED,
               do_verb(i % VERBS, NULL, model, "fake:steps=20000,step_ms=1,open=1", c.run, &err));
        join(thread);
        sitter_run_free(c.run);
        CHECK(seconds() - before < 5.0);
    }
    sitter_model_free(model);
}

struct owned {
    sitter_engine *engine;
    sitter_model *model;
    sitter_dataset *dataset;
    sitter_train_options *options;
    sitter_run *run;
    int begun, freed;
};

static void *free_everything(void *argument) {
    struct owned *o = argument;
    CHECK(wait_for(&o->begun));
    sitter_engine_free(o->engine);
    sitter_model_free(o->model);
    sitter_dataset_free(o->dataset);
    sitter_train_options_free(o->options);
    sitter_run_free(o->run);
    put(&o->freed, 1);
    return NULL;
}

static int32_t until_freed(void *user_data, const sitter_event *event) {
    struct owned *o = user_data;
    put(&o->begun, 1);
    /* From the third step on, everything that the call was given is gone. */
    CHECK(event->done < 3 || wait_for(&o->freed));
    return SITTER_CONTINUE;
}

static void everything_is_freed_while_a_job_runs(void) {
    for (int i = 0; i < 5; i++) {
        struct owned o = {NULL, NULL, NULL, NULL, NULL, 0, 0};
        sitter_subject *subject = NULL;
        pthread_t thread;
        size_t needed = 0;
        o.engine = engine_with(1);
        o.model = open_model(o.engine, "fake:steps=6");
        o.dataset = small_dataset();
        o.options = fox_options(o.model);
        o.run = run_with(until_freed, &o);
        thread = start(free_everything, &o);
        EXPECT(SITTER_OK, sitter_subject_train(o.model, o.dataset, o.options, o.run, &subject, &err));
        join(thread);
        EXPECT(SITTER_OK, sitter_subject_losses(subject, NULL, NULL, NULL, 0, &needed, &err));
        CHECK(needed == 6);
        sitter_subject_free(subject);
    }
}

struct job {
    const sitter_engine *engine;
    sitter_model *model;
    int working, waited, saw_work;
    int *other_is_there;
    pthread_t thread;
};

static int32_t meet(void *user_data, const sitter_event *event) {
    struct job *j = user_data;
    if (event->stage == SITTER_STAGE_WAITING && event->done == 0) {
        put(&j->waited, 1);
        return SITTER_CONTINUE;
    }
    put(&j->working, 1);
    /* Stays in its job until the other one has come as far as it can. */
    CHECK(wait_for(j->other_is_there));
    return SITTER_CONTINUE;
}

static void *sample(void *argument) {
    struct job *j = argument;
    sitter_run *run = run_with(meet, j);
    EXPECT(SITTER_OK, do_verb(SAMPLE, NULL, j->model, NULL, run, &err));
    sitter_run_free(run);
    return NULL;
}

/* With two jobs allowed, both are at work at once; with one, the second waits, says so, and gets its turn. */
static void two_jobs_of_one_engine(void) {
    for (uint32_t max_jobs = 1; max_jobs <= 2; max_jobs++) {
        sitter_engine *engine = engine_with(max_jobs);
        sitter_model *model = open_model(engine, "fake:steps=3");
        struct job first = {NULL, NULL, 0, 0, 0, NULL, 0}, second = first;
        first.model = second.model = model;
        first.other_is_there = max_jobs == 1 ? &second.waited : &second.working;
        second.other_is_there = &first.working;
        first.thread = start(sample, &first);
        CHECK(wait_for(&first.working));
        second.thread = start(sample, &second);
        join(first.thread);
        join(second.thread);
        CHECK(second.working);
        CHECK(max_jobs == 2 || second.waited);
        sitter_model_free(model);
        sitter_engine_free(engine);
    }
}

static int32_t cancel_waiting(void *user_data, const sitter_event *event) {
    int *stopped = user_data;
    CHECK(event->stage == SITTER_STAGE_WAITING);
    put(stopped, 1);
    return 0;
}

/* A job that waits for its turn can be cancelled, and the one it waited for does not notice. */
static void cancel_while_waiting(void) {
    sitter_engine *engine = engine_with(1);
    sitter_model *model = open_model(engine, "fake:steps=3");
    int stopped = 0;
    struct job first = {NULL, NULL, 0, 0, 0, NULL, 0};
    sitter_run *run = run_with(cancel_waiting, &stopped);
    first.model = model;
    first.other_is_there = &stopped;
    first.thread = start(sample, &first);
    CHECK(wait_for(&first.working));
    EXPECT(SITTER_E_CANCELLED, do_verb(TRAIN, NULL, model, NULL, run, &err));
    join(first.thread);
    sitter_run_free(run);
    sitter_model_free(model);
    sitter_engine_free(engine);
}

struct poll {
    sitter_run *run;
    int ended, seen;
};

/* What is polled never goes back within a stage. */
static void *poll_events(void *argument) {
    struct poll *p = argument;
    sitter_event last = {0, 0, 0, 0, 0, 0.0, 0, 0, 0};
    while (!look(&p->ended)) {
        sitter_event event;
        EXPECT(SITTER_OK, sitter_run_snapshot(p->run, &event, sizeof event, &err));
        CHECK(event.stage >= last.stage && event.elapsed_ms >= last.elapsed_ms);
        CHECK(event.stage != last.stage || event.done >= last.done);
        CHECK(event.done <= event.total);
        p->seen += event.stage != last.stage || event.done != last.done;
        last = event;
        sleep_ms(1);
    }
    return NULL;
}

static void events_can_be_polled(void) {
    sitter_model *model = open_model(NULL, "fake:steps=20,step_ms=2");
    struct poll p = {NULL, 0, 0};
    pthread_t thread;
    EXPECT(SITTER_OK, sitter_run_new(&p.run, &err));
    thread = start(poll_events, &p);
    EXPECT(SITTER_OK, do_verb(TRAIN, NULL, model, NULL, p.run, &err));
    put(&p.ended, 1);
    join(thread);
    CHECK(p.seen >= 3);
    sitter_run_free(p.run);
    sitter_model_free(model);
}

struct beats {
    pthread_t caller;
    int count;
};

static int32_t beat(void *user_data, const sitter_event *event) {
    struct beats *b = user_data;
    (void)event;
    CHECK(pthread_equal(b->caller, pthread_self()));
    b->count++;
    return SITTER_CONTINUE;
}

/* Steps of 350 ms: the callback is called in between too, always on the thread of the call. */
static void heartbeats_come_on_the_calling_thread(void) {
    sitter_model *model = open_model(NULL, "fake:steps=2,step_ms=350");
    struct beats b;
    sitter_run *run;
    b.caller = pthread_self();
    b.count = 0;
    run = run_with(beat, &b);
    EXPECT(SITTER_OK, do_verb(DECODE, NULL, model, NULL, run, &err));
    CHECK(b.count >= 8);
    sitter_run_free(run);
    sitter_model_free(model);
}

struct shared {
    sitter_model *model;
    sitter_tokens *tokens;
};

static void *use_and_free(void *argument) {
    struct shared *s = argument;
    for (int i = 0; i < 20; i++) {
        sitter_image *image = NULL;
        uint32_t codes[4];
        EXPECT(SITTER_OK, sitter_image_decode(s->model, s->tokens, NULL, &image, &err));
        EXPECT(SITTER_OK, sitter_tokens_copy(s->tokens, codes, 4, NULL, &err));
        sitter_image_free(image);
        sitter_tokens_free(sitter_tokens_ref(s->tokens));
    }
    sitter_model_free(s->model);
    sitter_tokens_free(s->tokens);
    return NULL;
}

/* Four threads, each with a reference of its own; the last one out turns off the light. */
static void shared_handles_are_used_at_once(void) {
    struct shared s = {open_model(NULL, "fake:steps=1"), four_tokens()};
    pthread_t threads[4];
    for (int i = 0; i < 3; i++) {
        sitter_model_ref(s.model);
        sitter_tokens_ref(s.tokens);
    }
    for (int i = 0; i < 4; i++) {
        threads[i] = start(use_and_free, &s);
    }
    for (int i = 0; i < 4; i++) {
        join(threads[i]);
    }
}

int main(void) {
    cancel_from_another_thread();
    everything_is_freed_while_a_job_runs();
    two_jobs_of_one_engine();
    cancel_while_waiting();
    events_can_be_polled();
    heartbeats_come_on_the_calling_thread();
    shared_handles_are_used_at_once();
    return 0;
}
