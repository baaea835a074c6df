/*
 * Sitter: teaches a pretrained autoregressive text-to-image model one subject from a few pictures, and draws it.
 *
 *     open model  ->  train subject  ->  sample tokens  ->  decode image
 *
 * Made from src/capi by cbindgen; do not edit. What holds for every function:
 *
 * Stability  A program compiled with this header runs unchanged on every later library of the same major version. Call
 *            sitter_require_abi(SITTER_ABI_MAJOR, SITTER_ABI_MINOR, &err) first.
 * Errors     What can fail returns a sitter_status, 0 for success, and takes a sitter_error ** last, which may be NULL. On
 *            failure it receives an error to be freed with sitter_error_free, or NULL when even that cannot be made. Treat
 *            unknown values as failures. SITTER_E_NULL_POINTER, SITTER_E_INVALID_ARGUMENT, SITTER_E_WRONG_HANDLE,
 *            SITTER_E_FORKED, SITTER_E_INTERNAL and SITTER_E_PANIC can come from any function and are not repeated; a call
 *            that takes a run can also give SITTER_E_INVALID_STATE, SITTER_E_REENTRANT and SITTER_E_RESOURCE_EXHAUSTED.
 * Ownership  Everything is an opaque handle. Shared handles (engine, model, subject, tokens, image) never change, are counted,
 *            may be used from several threads at once, and keep alive what they need: free them in any order, from any
 *            thread. Builder handles (options, dataset, run, error) have one owner and belong to one thread at a time unless a
 *            function says otherwise. Free with the function of the same noun; NULL is fine. Every input is copied or counted
 *            during the call. Outputs of handles are NULL after a failure.
 * NULL       A pointer may be NULL only where the comment says so. A handle of another kind gives SITTER_E_WRONG_HANDLE, often
 *            a freed one too; that is a help, not a guarantee.
 * Text       UTF-8, NUL-terminated. Paths too, on every system.
 * Buffers    f(..., buffer, capacity, &needed, &err): (NULL, 0) asks for the size; too small a buffer is left as it is and gives
 *            SITTER_E_BUFFER_TOO_SMALL with the size in needed, which may be NULL if there is a buffer.
 * Long calls Block, and take a sitter_run *, which may be NULL. Its event function runs on the calling thread, after each step
 *            and at least every 100 ms; only SITTER_CONTINUE lets the call go on. sitter_run_cancel may come from any thread.
 *            After SITTER_E_CANCELLED the model is as good as new.
 * Process    No output to standard streams, no signal handlers, no environment or locale changes, no network. The library is
 *            not unloaded by dlclose. In a forked child every object of the parent gives SITTER_E_FORKED; what the child
 *            opens itself works on the CPU, if no other thread was in a call when it was forked. One known exception to never
 *            ending the process: when the system has no memory left for a computation on the CPU.
 */

#ifndef SITTER_H
#define SITTER_H

#include <stddef.h>
#include <stdint.h>
/* Windows users of the shared library define SITTER_DLL; nobody else has to do anything. */
#if defined(_WIN32) && defined(SITTER_DLL)
#define SITTER_API __declspec(dllimport)
#else
#define SITTER_API
#endif

/*
 Log nothing: the default.
 */
#define SITTER_LOG_OFF 0

#define SITTER_LOG_ERROR 1

#define SITTER_LOG_WARN 2

#define SITTER_LOG_INFO 3

#define SITTER_LOG_DEBUG 4

/*
 A picture that was drawn of the subject.
 */
#define SITTER_ROLE_PICTURE 1

/*
 A picture that the subject was taught with.
 */
#define SITTER_ROLE_REFERENCE 2

/*
 A picture drawn with the subject applied, of a prompt that names only its class: it tells how far the subject leaked there.
 */
#define SITTER_ROLE_CLASS_PICTURE 3

/*
 A picture of such a prompt by the model without the subject.
 */
#define SITTER_ROLE_UNTOUCHED 4

/*
 Waiting for another job of the engine to end; done and total are 0.
 */
#define SITTER_STAGE_WAITING 1

/*
 Reading a model's files: layers of the transformer.
 */
#define SITTER_STAGE_OPEN 2

/*
 Turning reference pictures into tokens: pictures with their varied copies.
 */
#define SITTER_STAGE_ENCODE 3

/*
 Drawing pictures of the class for prior preservation: pictures.
 */
#define SITTER_STAGE_PRIOR 4

/*
 Training stage 1, the identifier's vectors: steps. The value is the loss.
 */
#define SITTER_STAGE_EMBEDDING 5

/*
 Training stage 2, transformer weights: steps. The value is the loss.
 */
#define SITTER_STAGE_LAYERS 6

/*
 Drawing tokens: tokens of each picture.
 */
#define SITTER_STAGE_SAMPLE 7

/*
 Scoring pictures: pictures.
 */
#define SITTER_STAGE_SCORE 8

/*
 Turning tokens into a picture: pictures.
 */
#define SITTER_STAGE_DECODE 9

/*
 The one value of an event function that lets the call go on.
 */
#define SITTER_CONTINUE 1

/*
 Raised when a host would have to change; part of the library's file name.
 */
#define SITTER_ABI_MAJOR 1

/*
 Raised by each release that adds something.
 */
#define SITTER_ABI_MINOR 1

/*
 Reference pictures of one subject, three to five as a rule, with a caption for each or for none. Builder handle.
 */
typedef struct sitter_dataset sitter_dataset;

/*
 Threads and log that several models share. Shared handle.
 */
typedef struct sitter_engine sitter_engine;

/*
 How an engine is to be made. Builder handle.
 */
typedef struct sitter_engine_options sitter_engine_options;

/*
 What went wrong: status, message, detail. Builder handle; free it with `sitter_error_free`.
 */
typedef struct sitter_error sitter_error;

/*
 Pictures of one subject that are to be measured, with what they are compared with. Builder handle.
 */
typedef struct sitter_evaluation sitter_evaluation;

/*
 Networks that measure pictures as the papers do: DINO, CLIP, LPIPS. Shared handle; never changes.
 */
typedef struct sitter_evaluator sitter_evaluator;

/*
 Where the networks of an evaluator are. Builder handle.
 */
typedef struct sitter_evaluator_options sitter_evaluator_options;

/*
 An RGB picture of eight bits per channel. Shared handle; never changes.
 */
typedef struct sitter_image sitter_image;

/*
 A pretrained model. Shared handle; never changes.
 */
typedef struct sitter_model sitter_model;

/*
 How to open a model. Builder handle.
 */
typedef struct sitter_model_options sitter_model_options;

/*
 Callback and controls of one long call. Single use. Builder handle, but cancel, finish early, snapshot and free may come
 from any thread.
 */
typedef struct sitter_run sitter_run;

/*
 How to draw. Builder handle.
 */
typedef struct sitter_sample_options sitter_sample_options;

/*
 Scores of one evaluation. Shared handle; never changes.
 */
typedef struct sitter_scores sitter_scores;

/*
 What training learned about one subject. It belongs to the model it was trained on. Shared handle; never changes.
 */
typedef struct sitter_subject sitter_subject;

/*
 The grid of image tokens of one picture: indices into the codebook. Shared handle; never changes.
 */
typedef struct sitter_tokens sitter_tokens;

/*
 How to teach a subject. Builder handle.
 */
typedef struct sitter_train_options sitter_train_options;

/*
 0 is success; everything else is a failure, unknown values too. Values are never renumbered.
 */
typedef int32_t sitter_status;

/*
 Receives a log line: UTF-8, no newline at its end, valid during the call. From any thread, several at once.
 */
typedef void (*sitter_log_fn)(void *user_data, int32_t level, const char *line);

/*
 Called once when the library will not use `user_data` any more.
 */
typedef void (*sitter_drop_fn)(void *user_data);

/*
 One report of a run: `done` of `total` units of `stage` are finished. The only struct of this header with a visible
 layout; later versions may append fields, so do not read past `struct_size`. Valid during the callback.
 */
typedef struct sitter_event {
  /*
   Bytes of this struct in the library that fills it in.
   */
  uint32_t struct_size;
  /*
   SITTER_STAGE_...; says what `done` and `total` count. Treat unknown values as a stage without a name.
   */
  int32_t stage;
  /*
   Never falls within a stage; equals `total` in a stage's last event.
   */
  uint64_t done;
  /*
   0 if it is not known.
   */
  uint64_t total;
  /*
   Milliseconds since the call began.
   */
  uint64_t elapsed_ms;
  /*
   Loss in nats per token in the training stages, else NaN.
   */
  double value;
  /*
   Which of `item_count` things the stage is at, from 0; 0 of 1 where there is one.
   */
  uint32_t item;
  uint32_t item_count;
  /*
   What went wrong so far without ending the call, such as a checkpoint that could not be written; the words are in
   the log. Since 1.1.
   */
  uint64_t warnings;
} sitter_event;

/*
 Gets events on the thread that made the call: after each step, and at least every 100 milliseconds. Return
 SITTER_CONTINUE to go on; any other value cancels the call, and no more events come. It must return: no exception, no
 longjmp. Inside it only `sitter_run_*`, getters, `*_ref` and `*_free` may be called; what would start work gives
 SITTER_E_REENTRANT.
 */
typedef int32_t (*sitter_event_fn)(void *user_data, const struct sitter_event *event);

#define SITTER_OK 0

/*
 A pointer that may not be NULL is NULL.
 */
#define SITTER_E_NULL_POINTER 101

/*
 A value out of its range, or one that contradicts another. The message names the argument or the option.
 */
#define SITTER_E_INVALID_ARGUMENT 102

/*
 A handle of another kind, or one that was freed.
 */
#define SITTER_E_WRONG_HANDLE 103

/*
 The object is not ready for it, or has been used up: a run serves one call.
 */
#define SITTER_E_INVALID_STATE 104

/*
 The buffer is smaller than what was asked for; the size that is needed was written.
 */
#define SITTER_E_BUFFER_TOO_SMALL 105

/*
 Work cannot be started from inside a callback.
 */
#define SITTER_E_REENTRANT 106

/*
 A subject was trained on another model.
 */
#define SITTER_E_WRONG_MODEL 107

/*
 The system refused to read or write.
 */
#define SITTER_E_IO 201

/*
 A file or folder is not there.
 */
#define SITTER_E_NOT_FOUND 202

/*
 Not enough memory.
 */
#define SITTER_E_RESOURCE_EXHAUSTED 203

/*
 The device failed or does not exist.
 */
#define SITTER_E_DEVICE 204

/*
 A file is not what its name says: truncated, malformed, incomplete.
 */
#define SITTER_E_BAD_FORMAT 301

/*
 A model of a family, or with a feature, that this library does not know.
 */
#define SITTER_E_UNSUPPORTED_MODEL 302

/*
 A tensor is missing or has another shape or type than the configuration implies.
 */
#define SITTER_E_SHAPE_MISMATCH 303

/*
 Well-formed data with impossible numbers in it.
 */
#define SITTER_E_CORRUPT 304

/*
 The run was cancelled.
 */
#define SITTER_E_CANCELLED 401

/*
 This build or this machine cannot do it.
 */
#define SITTER_E_NOT_SUPPORTED 501

/*
 The library is too old, or too new, for this host.
 */
#define SITTER_E_ABI_MISMATCH 502

/*
 The object belongs to the process that this one was forked from.
 */
#define SITTER_E_FORKED 503

/*
 A defect of this library, or an error of the tensor library below it.
 */
#define SITTER_E_INTERNAL 901

/*
 A panic was caught at the boundary: a defect of this library. Nothing was left half done.
 */
#define SITTER_E_PANIC 902

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The library's ABI version, (major << 16) | minor. Any thread. Since 1.0.
 */
SITTER_API uint32_t sitter_abi_version(void);

/*
 How the library was built, as a JSON object: version, target, profile, compiler, commit. Never NULL, valid for ever. Any
 thread. Since 1.0.
 */
SITTER_API
const char *sitter_build_info_json(void);

/*
 Adds a picture; the dataset keeps a reference of its own. `caption` may be NULL: the picture is learned under the
 templates of the options. A caption contains the identifier; either all pictures have one or none. Since 1.0.
 */
SITTER_API
sitter_status sitter_dataset_add(struct sitter_dataset *dataset,
                                 const struct sitter_image *image,
                                 const char *caption,
                                 struct sitter_error **err);

/*
 Pictures in it so far. Since 1.0.
 */
SITTER_API
sitter_status sitter_dataset_count(const struct sitter_dataset *dataset,
                                   size_t *count,
                                   struct sitter_error **err);

/*
 Frees a dataset. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_dataset_free(struct sitter_dataset *dataset);

/*
 An empty dataset. The caller owns it; free it with `sitter_dataset_free`. Any thread. Since 1.0.
 */
SITTER_API sitter_status sitter_dataset_new(struct sitter_dataset **out, struct sitter_error **err);

/*
 The devices that models can be opened on, as a JSON array of objects: name, hardware, memory_bytes, memory_free_bytes (null
 where it is not known). Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in `needed`.
 SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_devices_json(char *buffer,
                                  size_t capacity,
                                  size_t *needed,
                                  struct sitter_error **err);

/*
 Takes the log lines that have gathered, a line each, UTF-8: copies them to `buffer` of `capacity` bytes, the NUL
 included, and forgets them. `(NULL, 0)` asks for the size, in `needed`, and forgets nothing. SITTER_E_BUFFER_TOO_SMALL.
 Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_engine_drain_log(const struct sitter_engine *engine,
                                      char *buffer,
                                      size_t capacity,
                                      size_t *needed,
                                      struct sitter_error **err);

/*
 Gives a reference back. Models keep their engine alive. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_engine_free(struct sitter_engine *engine);

/*
 Makes an engine. `options` may be NULL for the defaults. Threads start with the first job. The caller owns the result;
 free it with `sitter_engine_free`. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_engine_new(const struct sitter_engine_options *options,
                                struct sitter_engine **out,
                                struct sitter_error **err);

/*
 Frees options. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_engine_options_free(struct sitter_engine_options *options);

/*
 Options for an engine: all cores, one job at a time, no log. Free them with `sitter_engine_options_free`. Any thread.
 Since 1.0.
 */
SITTER_API sitter_status sitter_engine_options_new(struct sitter_engine_options **out, struct sitter_error **err);

/*
 The function that gets the log lines; NULL for none. `drop_user_data`, which may be NULL, is called once, on any thread,
 when the engine and its last job are gone; at once if this call fails, if `log` is NULL, or when the function is
 replaced. Since 1.0.
 */
SITTER_API
sitter_status sitter_engine_options_set_log(struct sitter_engine_options *options,
                                            sitter_log_fn log,
                                            void *user_data,
                                            sitter_drop_fn drop_user_data,
                                            struct sitter_error **err);

/*
 What is logged: SITTER_LOG_OFF (default) to SITTER_LOG_DEBUG. Lines are kept for `sitter_engine_drain_log` unless there
 is a log function. Since 1.0.
 */
SITTER_API
sitter_status sitter_engine_options_set_log_level(struct sitter_engine_options *options,
                                                  int32_t level,
                                                  struct sitter_error **err);

/*
 Jobs that may run at once, 1 to 64; others wait in stage WAITING. Default 1. Each takes threads of its own. Since 1.0.
 */
SITTER_API
sitter_status sitter_engine_options_set_max_jobs(struct sitter_engine_options *options,
                                                 uint32_t max_jobs,
                                                 struct sitter_error **err);

/*
 Threads of each job; 0, the default, takes one per core. At most 1024. Since 1.0.
 */
SITTER_API
sitter_status sitter_engine_options_set_threads(struct sitter_engine_options *options,
                                                uint32_t threads,
                                                struct sitter_error **err);

/*
 One more reference to the same engine; returns it. NULL gives NULL. Any thread. Since 1.0.
 */
SITTER_API struct sitter_engine *sitter_engine_ref(const struct sitter_engine *engine);

/*
 The chain of causes, a line each, often empty. Never NULL. Valid until the error is freed. Any thread. Since 1.0.
 */
SITTER_API const char *sitter_error_detail(const struct sitter_error *error);

/*
 Frees an error. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_error_free(struct sitter_error *error);

/*
 One line of UTF-8 for people, which names the file, tensor or field, what was expected and what was found. Empty for
 NULL, never NULL. Valid until the error is freed. The wording is not part of the ABI. Any thread. Since 1.0.
 */
SITTER_API const char *sitter_error_message(const struct sitter_error *error);

/*
 The status of an error; SITTER_OK for NULL. Any thread. Since 1.0.
 */
SITTER_API sitter_status sitter_error_status(const struct sitter_error *error);

/*
 As `sitter_evaluation_add_image` of a picture file, which is read when its turn comes: for more pictures than fit in memory.
 One that cannot be read then is listed in the result. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluation_add_file(struct sitter_evaluation *evaluation,
                                         int32_t role,
                                         const char *path,
                                         const char *text,
                                         struct sitter_error **err);

/*
 Adds a picture in a role, SITTER_ROLE_PICTURE to SITTER_ROLE_UNTOUCHED; the evaluation keeps a reference of its own. `text` is
 what it was to show, with {} in the place of the identifier: "a {} dog in the snow"; NULL if that is not known.
 SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluation_add_image(struct sitter_evaluation *evaluation,
                                          int32_t role,
                                          const struct sitter_image *image,
                                          const char *text,
                                          struct sitter_error **err);

/*
 Frees an evaluation. NULL does nothing. Any thread. Since 1.1.
 */
SITTER_API void sitter_evaluation_free(struct sitter_evaluation *evaluation);

/*
 An empty evaluation, under protocol B. The caller owns it; free it with `sitter_evaluation_free`. Any thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluation_new(struct sitter_evaluation **out,
                                    struct sitter_error **err);

/*
 The subject's word in prompts, for the score of whole prompts; NULL, the default, leaves that score out. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluation_set_identifier(struct sitter_evaluation *evaluation,
                                               const char *identifier,
                                               struct sitter_error **err);

/*
 Under which published protocol to measure: "A" (DreamBooth), "B" (arXiv 2504.13162), "C" (Kosmos-G, OmniGen: one reference)
 or "D" (ARBooth, ViCo). SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluation_set_protocol(struct sitter_evaluation *evaluation,
                                             const char *protocol,
                                             struct sitter_error **err);

/*
 CLIP's vectors of `count` images, otherwise as `sitter_evaluator_dino`. Any thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_clip_image(const struct sitter_evaluator *evaluator,
                                          const struct sitter_image *const *images,
                                          size_t count,
                                          struct sitter_run *run,
                                          float *buffer,
                                          size_t capacity,
                                          size_t *needed,
                                          struct sitter_error **err);

/*
 CLIP's vectors of `count` texts, otherwise as `sitter_evaluator_dino`. What does not fit the network (77 tokens in the papers)
 is cut off. Any thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_clip_text(const struct sitter_evaluator *evaluator,
                                         const char *const *texts,
                                         size_t count,
                                         struct sitter_run *run,
                                         float *buffer,
                                         size_t capacity,
                                         size_t *needed,
                                         struct sitter_error **err);

/*
 DINO's vectors of `count` images, as the network gives them (not of length 1), one after the other: each as many numbers as
 `sitter_evaluator_info_json` says. `capacity` and `needed` count numbers; `(NULL, 0)` asks for the size and computes nothing.
 `run` may be NULL. Any thread. SITTER_E_INVALID_ARGUMENT without DINO, SITTER_E_BUFFER_TOO_SMALL, SITTER_E_CANCELLED.
 Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_dino(const struct sitter_evaluator *evaluator,
                                    const struct sitter_image *const *images,
                                    size_t count,
                                    struct sitter_run *run,
                                    float *buffer,
                                    size_t capacity,
                                    size_t *needed,
                                    struct sitter_error **err);

/*
 Gives a reference back. A call in progress keeps the evaluator. NULL does nothing. Any thread. Since 1.1.
 */
SITTER_API void sitter_evaluator_free(struct sitter_evaluator *evaluator);

/*
 Facts about the networks as a JSON object: dino and clip, each null or size (numbers of a vector), side, patch, layers, files
 (each file and sha256); lpips, null or its files. Copies them to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
 for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_info_json(const struct sitter_evaluator *evaluator,
                                         char *buffer,
                                         size_t capacity,
                                         size_t *needed,
                                         struct sitter_error **err);

/*
 Opens the networks that `options` name, at least one. They work on the CPU. `engine` may be NULL: the evaluator gets one of
 its own. `run` may be NULL. The caller owns the result; free it with `sitter_evaluator_free`. Any thread. SITTER_E_NOT_FOUND,
 SITTER_E_BAD_FORMAT, SITTER_E_SHAPE_MISMATCH, SITTER_E_CORRUPT, SITTER_E_UNSUPPORTED_MODEL, SITTER_E_CANCELLED. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_open(const struct sitter_engine *engine,
                                    const struct sitter_evaluator_options *options,
                                    struct sitter_run *run,
                                    struct sitter_evaluator **out,
                                    struct sitter_error **err);

/*
 Frees options. NULL does nothing. Any thread. Since 1.1.
 */
SITTER_API void sitter_evaluator_options_free(struct sitter_evaluator_options *options);

/*
 All options with their values, as a JSON object. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
 for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_options_get_json(const struct sitter_evaluator_options *options,
                                                char *buffer,
                                                size_t capacity,
                                                size_t *needed,
                                                struct sitter_error **err);

/*
 Options for opening an evaluator; at least one network has to be set. The caller owns them; free them with
 `sitter_evaluator_options_free`. Any thread. Since 1.1.
 */
SITTER_API sitter_status sitter_evaluator_options_new(struct sitter_evaluator_options **out, struct sitter_error **err);

/*
 CLIP, ViT-B/32 in the papers: a folder. NULL for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_options_set_clip(struct sitter_evaluator_options *options,
                                                const char *clip,
                                                struct sitter_error **err);

/*
 DINO, ViT-S/16 in the papers: a folder, or the authors' .pth file. NULL for none. SITTER_E_INVALID_ARGUMENT. Since
 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_options_set_dino(struct sitter_evaluator_options *options,
                                                const char *dino,
                                                struct sitter_error **err);

/*
 LPIPS on AlexNet, for the diversity of pictures of one prompt: a folder with torchvision's weights of AlexNet and
 the alex.pth of LPIPS, or a file with both. NULL for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_options_set_lpips(struct sitter_evaluator_options *options,
                                                 const char *lpips,
                                                 struct sitter_error **err);

/*
 One more reference to the same evaluator; returns it. NULL gives NULL. Any thread. Since 1.1.
 */
SITTER_API struct sitter_evaluator *sitter_evaluator_ref(const struct sitter_evaluator *evaluator);

/*
 Measures the pictures of an evaluation; it may be changed and measured again. Pictures and references that cannot be read do
 not end the call but are listed in the result, unless none is left. `run` may be NULL. The caller owns the result; free it with
 `sitter_scores_free`. Any thread. SITTER_E_INVALID_ARGUMENT without pictures or references; the status of the first file if
 none can be read; SITTER_E_CANCELLED. Since 1.1.
 */
SITTER_API
sitter_status sitter_evaluator_score(const struct sitter_evaluator *evaluator,
                                     const struct sitter_evaluation *evaluation,
                                     struct sitter_run *run,
                                     struct sitter_scores **out,
                                     struct sitter_error **err);

/*
 1 if this build has a feature, 0 if not or if it is unknown: "cuda", "cudnn", "embedded_model", "embedded_infinity", "evaluator".
 NULL gives 0. Any thread. Since 1.0.
 */
SITTER_API
int32_t sitter_has_feature(const char *name);

/*
 Copies the pixels out as float, 0 to 1: height x width x 3 numbers. `capacity` and `needed` count numbers; `(NULL, 0)` asks
 for the size. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_image_copy_f32(const struct sitter_image *image,
                                    float *buffer,
                                    size_t capacity,
                                    size_t *needed,
                                    struct sitter_error **err);

/*
 Copies the pixels out: height x width x 3 bytes, rows top to bottom. `capacity` and `needed` count bytes; `(NULL, 0)` asks
 for the size. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_image_copy_rgb8(const struct sitter_image *image,
                                     uint8_t *buffer,
                                     size_t capacity,
                                     size_t *needed,
                                     struct sitter_error **err);

/*
 The picture of a grid of tokens. `run` may be NULL. The caller owns the result; free it with `sitter_image_free`. Any
 thread. SITTER_E_INVALID_ARGUMENT for a token that is not in the codebook, SITTER_E_NOT_SUPPORTED for a model without the
 image tokenizer's decoder, SITTER_E_CANCELLED. Since 1.0.
 */
SITTER_API
sitter_status sitter_image_decode(const struct sitter_model *model,
                                  const struct sitter_tokens *tokens,
                                  struct sitter_run *run,
                                  struct sitter_image **out,
                                  struct sitter_error **err);

/*
 Gives a reference back. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_image_free(struct sitter_image *image);

/*
 As `sitter_image_from_rgb8` of float pixels, 0 to 1 (values outside are brought to the nearer end), rounded to eight bits.
 NaN is SITTER_E_INVALID_ARGUMENT. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_image_from_f32(const float *pixels,
                                    uint32_t width,
                                    uint32_t height,
                                    size_t row_stride_bytes,
                                    struct sitter_image **out,
                                    struct sitter_error **err);

/*
 An image of RGB pixels, three bytes each, rows top to bottom, `row_stride_bytes` apart; 0 for rows without gaps. The
 pixels are copied. At most 100 000 000. The caller owns the result; free it with `sitter_image_free`. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_image_from_rgb8(const uint8_t *pixels,
                                     uint32_t width,
                                     uint32_t height,
                                     size_t row_stride_bytes,
                                     struct sitter_image **out,
                                     struct sitter_error **err);

/*
 As `sitter_image_from_rgb8` with a fourth byte for each pixel: how opaque it is, 0 to 255, its colour not multiplied with it. Laid
 on white like the transparency of files, and remembered: of references that are transparent in places a training learns what
 shows the subject only (`masked_training`). Any thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_image_from_rgba8(const uint8_t *pixels,
                                      uint32_t width,
                                      uint32_t height,
                                      size_t row_stride_bytes,
                                      struct sitter_image **out,
                                      struct sitter_error **err);

/*
 Reads a PNG, JPEG or WebP file: EXIF orientation applied, transparency laid on white and remembered for `masked_training`. The
 caller owns the result; free it with `sitter_image_free`. Any thread. SITTER_E_NOT_FOUND, SITTER_E_IO, SITTER_E_BAD_FORMAT,
 SITTER_E_RESOURCE_EXHAUSTED. Since 1.0.
 */
SITTER_API
sitter_status sitter_image_open(const char *path,
                                struct sitter_image **out,
                                struct sitter_error **err);

/*
 One more reference to the same image; returns it. NULL gives NULL. Any thread. Since 1.0.
 */
SITTER_API struct sitter_image *sitter_image_ref(const struct sitter_image *image);

/*
 Writes a PNG file, with a text chunk `sitter` that says what made a decoded picture. The file appears whole or not at all.
 Any thread. SITTER_E_IO, SITTER_E_NOT_FOUND for a folder that is not there. Since 1.0.
 */
SITTER_API
sitter_status sitter_image_save_png(const struct sitter_image *image,
                                    const char *path,
                                    struct sitter_error **err);

/*
 Width and height in pixels. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_image_size(const struct sitter_image *image,
                                uint32_t *width,
                                uint32_t *height,
                                struct sitter_error **err);

/*
 How much memory a model and the work with it would take, said from its configuration before any of it is taken: a JSON object
 with peaks in bytes, weights included: weights, encode, decode, sample, embedding (training stage 1), layers (stage 2),
 layers_host (what stage 2 keeps in the host's memory beside a GPU), and free, what the device could still give, or null.
 `path` as in `sitter_model_open`; nothing is opened. `options`, `sample` and `train` may be NULL: device and dtype `auto`, and
 what the model recommends. Copies the text to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in
 `needed`. Calls that need more than is free fail at once with SITTER_E_RESOURCE_EXHAUSTED. Any thread.
 SITTER_E_NOT_FOUND, SITTER_E_BAD_FORMAT, SITTER_E_UNSUPPORTED_MODEL, SITTER_E_DEVICE, SITTER_E_BUFFER_TOO_SMALL.
 Since 1.1.
 */
SITTER_API
sitter_status sitter_model_estimate_json(const char *path,
                                         const struct sitter_model_options *options,
                                         const struct sitter_sample_options *sample,
                                         const struct sitter_train_options *train,
                                         char *buffer,
                                         size_t capacity,
                                         size_t *needed,
                                         struct sitter_error **err);

/*
 Gives a reference back. A call in progress keeps the model. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_model_free(struct sitter_model *model);

/*
 Facts about the model as a JSON object: family, name, fingerprint, parameters, vocabulary, codebook, grid_unit_px, device,
 dtype, can_decode, sample_defaults, and licence, the terms of the family's published weights, where they are known. Copies them
 to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Any
 thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_model_info_json(const struct sitter_model *model,
                                     char *buffer,
                                     size_t capacity,
                                     size_t *needed,
                                     struct sitter_error **err);

/*
 Opens a model folder in Hugging Face layout (`config.json`, `model.safetensors` or shards with an index,
 `tokenizer.json`, image tokenizer), or `embedded:`, the small model inside the library; `embedded:infinity` is a second
 one where the build has the feature `embedded_infinity`. `engine` may be NULL: the model gets one of its own. `options`
 may be NULL: device and dtype `auto`. `run` may be NULL. The caller owns the result; free it with `sitter_model_free`. Any
 thread. SITTER_E_NOT_FOUND, SITTER_E_BAD_FORMAT, SITTER_E_SHAPE_MISMATCH, SITTER_E_CORRUPT, SITTER_E_UNSUPPORTED_MODEL,
 SITTER_E_DEVICE, SITTER_E_CANCELLED. Since 1.0.
 */
SITTER_API
sitter_status sitter_model_open(const struct sitter_engine *engine,
                                const char *path,
                                const struct sitter_model_options *options,
                                struct sitter_run *run,
                                struct sitter_model **out,
                                struct sitter_error **err);

/*
 Frees options. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_model_options_free(struct sitter_model_options *options);

/*
 All options with their values, as a JSON object. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
 for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Since 1.0.
 */
SITTER_API
sitter_status sitter_model_options_get_json(const struct sitter_model_options *options,
                                            char *buffer,
                                            size_t capacity,
                                            size_t *needed,
                                            struct sitter_error **err);

/*
 Options for opening a model. The caller owns them; free them with `sitter_model_options_free`. Any thread. Since 1.0.
 */
SITTER_API sitter_status sitter_model_options_new(struct sitter_model_options **out, struct sitter_error **err);

/*
 "auto", "cpu", "cuda" or "cuda:N". SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_model_options_set_device(struct sitter_model_options *options,
                                              const char *device,
                                              struct sitter_error **err);

/*
 "auto", "f32", "bf16", "q8_0" or "q4_k". The image tokenizer always runs in f32. SITTER_E_INVALID_ARGUMENT. Since
 1.0.
 */
SITTER_API
sitter_status sitter_model_options_set_dtype(struct sitter_model_options *options,
                                             const char *dtype,
                                             struct sitter_error **err);

/*
 Whether quantised weights are kept in a file of the model's folder, "sitter.q8_0.safetensors" or
 "sitter.q4_k.safetensors": written when the model is opened so for the first time, read from then on.
 SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_model_options_set_keep_quantised(struct sitter_model_options *options,
                                                      int32_t keep_quantised,
                                                      struct sitter_error **err);

/*
 Of models whose text encoder is a network of its own: "keep" it in memory, or "unload" it when it has read the texts
 of a call, which are remembered. "auto" keeps it where all weights together take at most half of the memory that is
 free. Other models take "auto" only. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_model_options_set_text_encoder(struct sitter_model_options *options,
                                                    const char *text_encoder,
                                                    struct sitter_error **err);

/*
 One more reference to the same model; returns it. NULL gives NULL. Any thread. Since 1.0.
 */
SITTER_API struct sitter_model *sitter_model_ref(const struct sitter_model *model);

/*
 Succeeds if the library serves a host compiled for ABI `major`.`minor`: pass SITTER_ABI_MAJOR and SITTER_ABI_MINOR, first
 thing. Any thread. SITTER_E_ABI_MISMATCH. Since 1.0.
 */
SITTER_API
sitter_status sitter_require_abi(uint32_t major,
                                 uint32_t minor,
                                 struct sitter_error **err);

/*
 Stops the call: it returns SITTER_E_CANCELLED soon, and its outputs stay NULL. Never taken back: before the call begins,
 it makes it return at once. NULL does nothing. Any thread, signal handlers too. Since 1.0.
 */
SITTER_API
void sitter_run_cancel(const struct sitter_run *run);

/*
 Ends a training at its next step with what was learned so far, status SITTER_OK; calls that have nothing to keep half
 done ignore it. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_run_finish_early(const struct sitter_run *run);

/*
 Frees a run. During the call that it serves this is harmless: the call goes on. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API
void sitter_run_free(struct sitter_run *run);

/*
 A run for one long call. The caller owns it; free it with `sitter_run_free`. Any thread. Since 1.0.
 */
SITTER_API sitter_status sitter_run_new(struct sitter_run **out, struct sitter_error **err);

/*
 Sets the event function, NULL for none. `user_data` is handed to it as it is, and not used after the call that the run
 serves. Before that call only: SITTER_E_INVALID_STATE. Since 1.0.
 */
SITTER_API
sitter_status sitter_run_set_callback(struct sitter_run *run,
                                      sitter_event_fn callback,
                                      void *user_data,
                                      struct sitter_error **err);

/*
 Copies the newest event, for hosts that poll; stage 0 before the first. `event` has `event_size` bytes, of which as many
 are written as this library knows; the rest is set to 0. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_run_snapshot(const struct sitter_run *run,
                                  struct sitter_event *event,
                                  size_t event_size,
                                  struct sitter_error **err);

/*
 The tokens drawn so far of picture `picture`, from 0, of those that the call is drawing or drew last: its complete rows,
 or the scales so far of models that draw scale after scale, which can be decoded as they are, the latter to a smaller picture.
 Training draws too, if its options ask for it. SITTER_E_INVALID_STATE while neither row nor scale is complete, or if there is no
 such picture. The caller owns the result; free it with `sitter_tokens_free`. Any thread, also inside the event function, which cannot decode: another thread can, with an engine that takes two jobs. Since 1.1.
 */
SITTER_API
sitter_status sitter_run_tokens(const struct sitter_run *run,
                                uint32_t picture,
                                struct sitter_tokens **out,
                                struct sitter_error **err);

/*
 Options for drawing with what the model in a folder recommends, which is not opened: for `sitter_model_estimate_json`. `path` as
 in `sitter_model_open`. The caller owns them; free them with `sitter_sample_options_free`. Any thread. SITTER_E_NOT_FOUND,
 SITTER_E_BAD_FORMAT, SITTER_E_UNSUPPORTED_MODEL. Since 1.1.
 */
SITTER_API
sitter_status sitter_sample_options_for_folder(const char *path,
                                               struct sitter_sample_options **out,
                                               struct sitter_error **err);

/*
 Frees options. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_sample_options_free(struct sitter_sample_options *options);

/*
 All options with their values, as a JSON object. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
 for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Since 1.0.
 */
SITTER_API
sitter_status sitter_sample_options_get_json(const struct sitter_sample_options *options,
                                             char *buffer,
                                             size_t capacity,
                                             size_t *needed,
                                             struct sitter_error **err);

/*
 Options for drawing, with what the model recommends; with the defaults of the paper (arXiv 2504.13162) if `model` is NULL.
 The caller owns them; free them with `sitter_sample_options_free`. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_sample_options_new(const struct sitter_model *model,
                                        struct sitter_sample_options **out,
                                        struct sitter_error **err);

/*
 "sequential" draws code by code; "speculative" verifies several guesses in one pass and gives the same picture;
 "speculative_distribution" needs fewer passes and gives another picture from the same distribution, which "window"
 changes too. Default "sequential"; which is faster depends on model and machine, see docs/decoding.md.
 SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_sample_options_set_decoding(struct sitter_sample_options *options,
                                                 const char *decoding,
                                                 struct sitter_error **err);

/*
 Classifier-free guidance scale; 1 switches it off and halves the work. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_sample_options_set_guidance(struct sitter_sample_options *options,
                                                 double guidance,
                                                 struct sitter_error **err);

/*
 Guidance of each scale instead of one for all, coarse to fine, of models that draw scale after scale; 0 to 100 each.
 The last one counts for the scales behind, too; more than the picture has scales are an error. Default none. (NULL,
 0) for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_sample_options_set_guidance_by_scale(struct sitter_sample_options *options,
                                                          const float *guidance_by_scale,
                                                          size_t count,
                                                          struct sitter_error **err);

/*
 Pixels; a multiple of the model's grid unit. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_sample_options_set_height(struct sitter_sample_options *options,
                                               uint32_t height,
                                               struct sitter_error **err);

/*
 The same seed gives the same picture. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_sample_options_set_seed(struct sitter_sample_options *options,
                                             uint64_t seed,
                                             struct sitter_error **err);

/*
 Above 0; smaller is safer and duller. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_sample_options_set_temperature(struct sitter_sample_options *options,
                                                    double temperature,
                                                    struct sitter_error **err);

/*
 Temperature of each scale instead of one for all, as "guidance_by_scale"; 0.01 to 100 each. Default none. (NULL, 0)
 for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_sample_options_set_temperature_by_scale(struct sitter_sample_options *options,
                                                             const float *temperature_by_scale,
                                                             size_t count,
                                                             struct sitter_error **err);

/*
 Only the k likeliest codes can be drawn; 0 allows all. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_sample_options_set_top_k(struct sitter_sample_options *options,
                                              uint32_t top_k,
                                              struct sitter_error **err);

/*
 Of each bit, the less likely value is never drawn if its probability is at most 1 less this; 0 to 1, and 1 allows
 all. Of models that draw bits, which recommend less (0.97). SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_sample_options_set_top_p(struct sitter_sample_options *options,
                                              double top_p,
                                              struct sitter_error **err);

/*
 Pixels; a multiple of the model's grid unit. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_sample_options_set_width(struct sitter_sample_options *options,
                                              uint32_t width,
                                              struct sitter_error **err);

/*
 Places that a pass of speculative decoding verifies, 2 to 256; 0, the default, leaves it to the library: 16, but for
 "speculative" on a CPU as many as pay there. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_sample_options_set_window(struct sitter_sample_options *options,
                                               uint32_t window,
                                               struct sitter_error **err);

/*
 Gives a reference back. NULL does nothing. Any thread. Since 1.1.
 */
SITTER_API void sitter_scores_free(struct sitter_scores *scores);

/*
 The scores as a JSON object; what a network that was not opened would say is null. protocol and rules (what it looks at,
 compares and averages), pictures, references and texts (how many); means over the pictures: dino (over the references, by the
 protocol), dino_one (to the first reference), dino_max (to the most alike), clip_i, clip_i_one, clip_i_max likewise, clip_t (the
 text that the protocol reads), clip_t_class (without identifier), clip_t_prompt (whole prompt); copies, copy_threshold (a
 picture as like a reference as the two references most alike is a copy), real (references among themselves: pairs, dino,
 clip_i), leakage (pictures, untouched_pictures, pres, untouched, share: from 0, the class is what it was, to 1, the subject
 has taken it over), diversity (LPIPS of pictures of one text); each, the same for every picture with name, text, nearest
 (which reference) and copy; failed (role, name and message of files that could not be read); networks, as
 `sitter_evaluator_info_json`. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in
 `needed`. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_scores_json(const struct sitter_scores *scores,
                                 char *buffer,
                                 size_t capacity,
                                 size_t *needed,
                                 struct sitter_error **err);

/*
 One more reference to the same scores; returns it. NULL gives NULL. Any thread. Since 1.1.
 */
SITTER_API struct sitter_scores *sitter_scores_ref(const struct sitter_scores *scores);

/*
 The name of a status, "SITTER_OK"; for values this library does not know, "unknown status". Never NULL, valid for ever. Any
 thread. Since 1.0.
 */
SITTER_API
const char *sitter_status_name(sitter_status status);

/*
 Gives a reference back. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_subject_free(struct sitter_subject *subject);

/*
 Facts about the subject as a JSON object: identifier, class_word, model (its fingerprint), method, vectors,
 changed_weights, stored_numbers, steps, last_loss, options, and licence, the terms of the model's weights, where they were known
 when it was taught. Copies them to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks for the size, in `needed`.
 SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_subject_info_json(const struct sitter_subject *subject,
                                       char *buffer,
                                       size_t capacity,
                                       size_t *needed,
                                       struct sitter_error **err);

/*
 Reads a subject file. The caller owns the result; free it with `sitter_subject_free`. Any thread. SITTER_E_NOT_FOUND,
 SITTER_E_BAD_FORMAT, SITTER_E_CORRUPT for a file that is damaged, SITTER_E_RESOURCE_EXHAUSTED. Since 1.0.
 */
SITTER_API sitter_status sitter_subject_load(const char *path, struct sitter_subject **out, struct sitter_error **err);

/*
 The losses of the training, one entry a step in order: SITTER_STAGE_EMBEDDING or SITTER_STAGE_LAYERS, the step within the
 stage from 0, and the loss in nats per token, each in an array of `capacity`. An array may be NULL to leave it out; with
 capacity 0 the call asks for the number of entries, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_subject_losses(const struct sitter_subject *subject,
                                    int32_t *stages,
                                    uint64_t *steps,
                                    double *losses,
                                    size_t capacity,
                                    size_t *needed,
                                    struct sitter_error **err);

/*
 One more reference to the same subject; returns it. NULL gives NULL. Any thread. Since 1.0.
 */
SITTER_API struct sitter_subject *sitter_subject_ref(const struct sitter_subject *subject);

/*
 Writes a subject file (safetensors). It appears whole or not at all. Any thread. SITTER_E_IO, SITTER_E_NOT_FOUND for a
 folder that is not there. Since 1.0.
 */
SITTER_API
sitter_status sitter_subject_save(const struct sitter_subject *subject,
                                  const char *path,
                                  struct sitter_error **err);

/*
 Teaches the model a subject; the model stays as it is. `options` come from `sitter_train_options_new`; at least the class
 word has to be set. `run` may be NULL. The caller owns the result; free it with `sitter_subject_free`. Any thread.
 SITTER_E_CANCELLED; after `sitter_run_finish_early` SITTER_OK and what was learned so far. Since 1.0.
 */
SITTER_API
sitter_status sitter_subject_train(const struct sitter_model *model,
                                   const struct sitter_dataset *dataset,
                                   const struct sitter_train_options *options,
                                   struct sitter_run *run,
                                   struct sitter_subject **out,
                                   struct sitter_error **err);

/*
 Copies the codebook indices out, rows top to bottom, of several grids one after the other. `capacity` and `needed` count tokens;
 `(NULL, 0)` asks for the size.
 SITTER_E_BUFFER_TOO_SMALL. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_tokens_copy(const struct sitter_tokens *tokens,
                                 uint32_t *buffer,
                                 size_t capacity,
                                 size_t *needed,
                                 struct sitter_error **err);

/*
 The tokens of an image. `target_px` is the side of the square whose area the image is brought to, by the model's list of
 crop sizes, as in training; 0 takes the image as it is if its sides are multiples of the model's grid unit and it is no
 larger than the model's own pictures, and otherwise fits it to those. `run` may be NULL. The caller owns the result; free
 it with `sitter_tokens_free`. Any thread. SITTER_E_CANCELLED. Since 1.0.
 */
SITTER_API
sitter_status sitter_tokens_encode(const struct sitter_model *model,
                                   const struct sitter_image *image,
                                   uint32_t target_px,
                                   struct sitter_run *run,
                                   struct sitter_tokens **out,
                                   struct sitter_error **err);

/*
 Gives a reference back. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_tokens_free(struct sitter_tokens *tokens);

/*
 Tokens from an array of `width` x `height` codebook indices, rows top to bottom; copied. Whether a model knows them is
 checked where they meet one. The caller owns the result; free it with `sitter_tokens_free`. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_tokens_from_array(const uint32_t *codes,
                                       uint32_t width,
                                       uint32_t height,
                                       struct sitter_tokens **out,
                                       struct sitter_error **err);

/*
 Tokens of several grids, coarse to fine, as models have them that draw scale after scale: `widths` and `heights` are arrays of
 `grid_count` numbers, 1 to 64, and `codes` has all codes of the first grid, rows top to bottom, then those of the next; copied.
 Whether a model knows them is checked where they meet one. The caller owns the result; free it with `sitter_tokens_free`. Any
 thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_tokens_from_grids(const uint32_t *codes,
                                       const uint32_t *widths,
                                       const uint32_t *heights,
                                       size_t grid_count,
                                       struct sitter_tokens **out,
                                       struct sitter_error **err);

/*
 Width and height of the grid, in tokens; of several grids, of the last one. Any thread. Since 1.0.
 */
SITTER_API
sitter_status sitter_tokens_grid(const struct sitter_tokens *tokens,
                                 uint32_t *width,
                                 uint32_t *height,
                                 struct sitter_error **err);

/*
 Width and height of grid `index`, from 0, the coarsest. Its codes follow those of the grids before it in what
 `sitter_tokens_copy` gives. SITTER_E_INVALID_ARGUMENT if there is no such grid. Any thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_tokens_grid_at(const struct sitter_tokens *tokens,
                                    size_t index,
                                    uint32_t *width,
                                    uint32_t *height,
                                    struct sitter_error **err);

/*
 How many grids the tokens have: one, or one for each scale of models that draw scale after scale. Any thread. Since 1.1.
 */
SITTER_API
sitter_status sitter_tokens_grid_count(const struct sitter_tokens *tokens,
                                       size_t *count,
                                       struct sitter_error **err);

/*
 One more reference to the same tokens; returns it. NULL gives NULL. Any thread. Since 1.0.
 */
SITTER_API struct sitter_tokens *sitter_tokens_ref(const struct sitter_tokens *tokens);

/*
 Draws `count` pictures of a prompt, 1 to 256, in one batch: `out` is an array of `count` handles, which the caller owns; free
 each with `sitter_tokens_free`. The prompt names a subject by its identifier. `subjects` is an array of `subject_count`
 subjects of this model, with different identifiers; NULL if there is none. `options` may be NULL: what the model recommends.
 `run` may be NULL. Any thread. SITTER_E_WRONG_MODEL, SITTER_E_CANCELLED. Since 1.0.
 */
SITTER_API
sitter_status sitter_tokens_sample(const struct sitter_model *model,
                                   const char *prompt,
                                   const struct sitter_subject *const *subjects,
                                   size_t subject_count,
                                   const struct sitter_sample_options *options,
                                   struct sitter_run *run,
                                   struct sitter_tokens **out,
                                   size_t count,
                                   struct sitter_error **err);

/*
 Mean nats per labelled token of each of `count` pictures under a prompt, written to `scores`: how surprising the model finds
 it; lower is likelier. Subjects as for `sitter_tokens_sample`. `run` may be NULL. Any thread. SITTER_E_WRONG_MODEL,
 SITTER_E_CANCELLED. Since 1.0.
 */
SITTER_API
sitter_status sitter_tokens_score(const struct sitter_model *model,
                                  const char *prompt,
                                  const struct sitter_subject *const *subjects,
                                  size_t subject_count,
                                  const struct sitter_tokens *const *pictures,
                                  size_t count,
                                  struct sitter_run *run,
                                  double *scores,
                                  struct sitter_error **err);

/*
 Options for teaching a subject with what the model in a folder recommends, which is not opened: for
 `sitter_model_estimate_json`. `path` as in `sitter_model_open`, `method` as in `sitter_train_options_new`. The caller owns them;
 free them with `sitter_train_options_free`. Any thread. SITTER_E_NOT_FOUND, SITTER_E_BAD_FORMAT, SITTER_E_UNSUPPORTED_MODEL.
 Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_for_folder(const char *path,
                                              const char *method,
                                              struct sitter_train_options **out,
                                              struct sitter_error **err);

/*
 Frees options. NULL does nothing. Any thread. Since 1.0.
 */
SITTER_API void sitter_train_options_free(struct sitter_train_options *options);

/*
 All options with their values, as a JSON object. Copies it to `buffer` of `capacity` bytes, NUL included; `(NULL, 0)` asks
 for the size, in `needed`. SITTER_E_BUFFER_TOO_SMALL. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_get_json(const struct sitter_train_options *options,
                                            char *buffer,
                                            size_t capacity,
                                            size_t *needed,
                                            struct sitter_error **err);

/*
 Options for teaching a subject by a method, with what the model recommends; with the defaults of the paper (arXiv 2504.13162)
 if `model` is NULL. `method` is "two_stage", "textual_inversion", "dreambooth", "lora", or "arbooth" (arXiv 2504.02612; for
 families that draw scale after scale); NULL is the one that the model's family has by default, without a model "two_stage". The
 class word has to be set before they are used. The caller owns them; free them with `sitter_train_options_free`. Any thread. Since
 1.0.
 */
SITTER_API
sitter_status sitter_train_options_new(const struct sitter_model *model,
                                       const char *method,
                                       struct sitter_train_options **out,
                                       struct sitter_error **err);

/*
 Groups that the pictures of a step are split into on a GPU; each goes through a layer by itself. On the CPU each
 picture is a group of its own. The result is the same but for rounding. 1 to "batch_size", default 1.
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_accumulation(struct sitter_train_options *options,
                                                    uint32_t accumulation,
                                                    struct sitter_error **err);

/*
 How they learn: "full", every number of them, or "low_rank", two factors for each matrix whose product is added to
 it. Default "full", method "lora" "low_rank". SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_adaptation(struct sitter_train_options *options,
                                                  const char *adaptation,
                                                  struct sitter_error **err);

/*
 Varied copies of each picture that are learned beside it: zoomed by 0.8 to 1.12, shifted by up to an eighth of each
 side (edges repeated), mirrored half of the time if "flip", cropped anew if "random_crop". Default 0 (paper); worth
 having for small models, which else learn the pictures by heart. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_augment(struct sitter_train_options *options,
                                               uint32_t augment,
                                               struct sitter_error **err);

/*
 Varied copies are not zoomed, and shifted by whole patches of the image tokenizer only, so that their tokens are
 those of the picture, moved. For models whose own pictures are drawn on that grid. Default false.
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_augment_aligned(struct sitter_train_options *options,
                                                       int32_t augment_aligned,
                                                       struct sitter_error **err);

/*
 Pictures with their prompts in one step. 1 to 256, default 1 (paper). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_batch_size(struct sitter_train_options *options,
                                                  uint32_t batch_size,
                                                  struct sitter_error **err);

/*
 0 to below 1, default 0.9 (Lumina). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_beta1(struct sitter_train_options *options,
                                             double beta1,
                                             struct sitter_error **err);

/*
 0 to below 1, default 0.95 (Lumina). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_beta2(struct sitter_train_options *options,
                                             double beta2,
                                             struct sitter_error **err);

/*
 Steps between two checkpoints; 0 for none. Default 0. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_checkpoint_every(struct sitter_train_options *options,
                                                        uint32_t checkpoint_every,
                                                        struct sitter_error **err);

/*
 The file that checkpoints are written to. If it is there when training begins, training goes on from it, to the same
 result; a training that came to its end removes it. Default none. NULL for none. SITTER_E_INVALID_ARGUMENT. Since
 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_checkpoint_path(struct sitter_train_options *options,
                                                       const char *checkpoint_path,
                                                       struct sitter_error **err);

/*
 What the subject is, in a word or a few: "dog". Needed unless "use_class_word" is false. SITTER_E_INVALID_ARGUMENT.
 Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_class_word(struct sitter_train_options *options,
                                                  const char *class_word,
                                                  struct sitter_error **err);

/*
 Gradients are scaled down to this norm, taken over all that learns. 0 switches it off. Default 4.0 (Lumina).
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_clip_norm(struct sitter_train_options *options,
                                                 double clip_norm,
                                                 struct sitter_error **err);

/*
 Last steps of the layers stage, over which its learning rate falls to 0 in a line; more than there are: all. What
 the last pictures taught by chance is averaged away. Default 0: the rate stays (both papers).
 SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_cooldown_steps(struct sitter_train_options *options,
                                                      uint32_t cooldown_steps,
                                                      struct sitter_error **err);

/*
 Probability of zeroing an output of attention or MLP, in both stages. 0 to below 1, default 0.05 (Lumina's script;
 its paper has 0.1). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_dropout(struct sitter_train_options *options,
                                               double dropout,
                                               struct sitter_error **err);

/*
 Ends the embedding stage when the mean loss of the last N steps is not at least 0.2% below that of the N steps
 before. 0 switches it off. Default 0 (ours). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_early_stop(struct sitter_train_options *options,
                                                  uint32_t early_stop,
                                                  struct sitter_error **err);

/*
 Learning rate of the vectors, in both stages. 0 to 10, default 0.01 (paper), "arbooth" 2.34375e-5 (ARBooth).
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_embedding_learning_rate(struct sitter_train_options *options,
                                                               double embedding_learning_rate,
                                                               struct sitter_error **err);

/*
 Steps of the embedding stage; 0 leaves it out. 0 to 1 000 000, default 1500 (paper). SITTER_E_INVALID_ARGUMENT.
 Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_embedding_steps(struct sitter_train_options *options,
                                                       uint32_t embedding_steps,
                                                       struct sitter_error **err);

/*
 Vectors that stand for the identifier. 1 to 64, default 1 (paper). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_embedding_vectors(struct sitter_train_options *options,
                                                         uint32_t embedding_vectors,
                                                         struct sitter_error **err);

/*
 Adds the mirror image of each picture. Default false (ours: subjects may hold writing). SITTER_E_INVALID_ARGUMENT.
 Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_flip(struct sitter_train_options *options,
                                            int32_t flip,
                                            struct sitter_error **err);

/*
 Probability, in the layers stage, that a picture is learned without its prompt, so that guidance keeps something to
 push off from. In the embedding stage such a picture would teach nothing. 0 to 1, default 0.1 (Lumina-mGPT 2.0).
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_guidance_dropout(struct sitter_train_options *options,
                                                        double guidance_dropout,
                                                        struct sitter_error **err);

/*
 The word that stands for the subject in prompts. No blanks, at most 64 bytes. Default "[V]".
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_identifier(struct sitter_train_options *options,
                                                  const char *identifier,
                                                  struct sitter_error **err);

/*
 Side of the square whose area the pictures are brought to, in pixels: the target of the crop-size list; a multiple
 of the model's grid unit. Default 768. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_image_size(struct sitter_train_options *options,
                                                  uint32_t image_size,
                                                  struct sitter_error **err);

/*
 The first values of the vectors: "hidden" numbers for all of them, or "embedding_vectors x hidden". Default none.
 (NULL, 0) for none. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_initial_embedding(struct sitter_train_options *options,
                                                         const float *initial_embedding,
                                                         size_t count,
                                                         struct sitter_error **err);

/*
 The size of that noise, as a multiple of the size that rows of the vocabulary have (paper: random, its size not
 said). 0 to 10, default 1, "arbooth" 0: they start at zero. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_initial_noise(struct sitter_train_options *options,
                                                     double initial_noise,
                                                     struct sitter_error **err);

/*
 A word whose rows of the vocabulary the vectors start from: a single vector from their mean, several each from a
 row, in turn. Without this and "initial_embedding" (not both) they start as normal noise. Default none. NULL for
 none. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_initial_word(struct sitter_train_options *options,
                                                    const char *initial_word,
                                                    struct sitter_error **err);

/*
 Whether gradients are kept until their norm is known. If not, each step goes back twice, once for the norm and once
 to update each layer as soon as its gradient is there: more than half more work, 4 bytes less for each number that
 learns. Without "clip_norm" nothing is kept anyway. Default true. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_keep_gradients(struct sitter_train_options *options,
                                                      int32_t keep_gradients,
                                                      struct sitter_error **err);

/*
 Learning rate of the transformer's weights. 0 to 10, default 5e-6 (paper), "lora" 1e-4 (ours), "arbooth" 2.34375e-5
 (ARBooth). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_layer_learning_rate(struct sitter_train_options *options,
                                                           double layer_learning_rate,
                                                           struct sitter_error **err);

/*
 Steps of the layers stage; 0 leaves it out. 0 to 1 000 000, default 70 (paper), "lora" 150 (paper: 100 to 170),
 "arbooth" 500 (ARBooth). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_layer_steps(struct sitter_train_options *options,
                                                   uint32_t layer_steps,
                                                   struct sitter_error **err);

/*
 Of the layers that may learn only every n-th does, the first among them. 1 to 1000, default 1 (paper: 1, 2, 4).
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_layer_stride(struct sitter_train_options *options,
                                                    uint32_t layer_stride,
                                                    struct sitter_error **err);

/*
 The layers that may learn, by their number from 0. Default empty: all. (NULL, 0) for none.
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_layers(struct sitter_train_options *options,
                                              const uint32_t *layers,
                                              size_t count,
                                              struct sitter_error **err);

/*
 Low-rank changes count this much divided by their rank. 0 for as much as the rank, so that they count once; at most
 10 000, default 0. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_lora_alpha(struct sitter_train_options *options,
                                                  double lora_alpha,
                                                  struct sitter_error **err);

/*
 Rank of low-rank changes, at most the sides of the matrix. 1 to 1024, default 64 (paper: 16 to 256).
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_lora_rank(struct sitter_train_options *options,
                                                 uint32_t lora_rank,
                                                 struct sitter_error **err);

/*
 Whether of a reference picture that is transparent in places only what shows the subject is learned: codes whose
 pixels are all transparent, or in a coarse grid more than half of them, stand before others and teach nothing, and
 its varied copies lie on a background of their own each. Without "augment" this makes eight copies of such a
 picture. Without transparency, or if false, transparent pixels are white ones. Default true (ours).
 SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_masked_training(struct sitter_train_options *options,
                                                       int32_t masked_training,
                                                       struct sitter_error **err);

/*
 Whether what learns is kept in f32 whatever the model runs in. If not, updates of a bf16 model are rounded at
 random, and 2 bytes fewer are taken for each number that learns. Default true. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_master_weights(struct sitter_train_options *options,
                                                      int32_t master_weights,
                                                      struct sitter_error **err);

/*
 Where these and the values that learn are, and updates are made: "device", that of the model, or "host". "device"
 needs "optimizer_state" "f32" and "master_weights". Default "auto": the device if it is a GPU on which they fit. The
 numbers are the same but for rounding. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_optimizer_device(struct sitter_train_options *options,
                                                        const char *optimizer_device,
                                                        struct sitter_error **err);

/*
 What the optimizer's two running means are kept in: "f32" (8 bytes for each number that learns), "bf16" (4) or
 "int8" (2). Default "f32". SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_optimizer_state(struct sitter_train_options *options,
                                                       const char *optimizer_state,
                                                       struct sitter_error **err);

/*
 Whether each picture gets a vector of its own, which stands at the end of half of its prompts, learns with the
 identifier's and is dropped at the end: it takes up what is particular to the picture. Default true (paper),
 "textual_inversion" and "dreambooth" false. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_per_image_tokens(struct sitter_train_options *options,
                                                        int32_t per_image_tokens,
                                                        struct sitter_error **err);

/*
 Class pictures to draw. 1 to 10 000, default 32 (ours). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_prior_count(struct sitter_train_options *options,
                                                   uint32_t prior_count,
                                                   struct sitter_error **err);

/*
 Whether class pictures teach what the untouched model predicts of them, and not what they show (prior distillation,
 ARBooth section 3.3): in each step the model draws new ones, as many as pictures of the subject, and they make an
 update of their own behind the subject's, as in the released code. "prior_count" has no meaning then. For families
 that draw scale after scale. Default false, "arbooth" true. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_prior_distillation(struct sitter_train_options *options,
                                                          int32_t prior_distillation,
                                                          struct sitter_error **err);

/*
 Weight of the loss on pictures of the plain class that the untouched model drew (DreamBooth); as many of them as
 pictures of the subject are in each step of the layers stage. 0 switches it off. 0 to 100, default 0 (paper: none).
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_prior_weight(struct sitter_train_options *options,
                                                    double prior_weight,
                                                    struct sitter_error **err);

/*
 Crops at random places instead of the middle (Lumina). Without "augment" this makes eight crops of each picture.
 Default false (ours). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_random_crop(struct sitter_train_options *options,
                                                   int32_t random_crop,
                                                   struct sitter_error **err);

/*
 Whether the backward pass computes each layer anew ("always"), or keeps what it needs of all ("never"). Default
 "auto": by the memory that is free. The result is the same. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_recompute(struct sitter_train_options *options,
                                                 const char *recompute,
                                                 struct sitter_error **err);

/*
 Steps, of both stages together, between two pictures of the subject that are drawn for people to look at while it is
 learned; each takes as long as drawing a picture does, and changes nothing about the result. 0 for none, at most 1
 000 000, default 0. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_sample_every(struct sitter_train_options *options,
                                                    uint32_t sample_every,
                                                    struct sitter_error **err);

/*
 What these pictures are to show; the subject is named by its identifier. Default none: the first template. NULL for
 none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_sample_prompt(struct sitter_train_options *options,
                                                     const char *sample_prompt,
                                                     struct sitter_error **err);

/*
 What each grid counts in the loss, coarse to fine; the last number counts for the grids behind, too. For families
 that draw scale after scale. Each 0 to 1000. Default empty: all count 1; "arbooth" 1 for the first eight, then 0.5
 (ARBooth). (NULL, 0) for none. SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_scale_weights(struct sitter_train_options *options,
                                                     const float *scale_weights,
                                                     size_t count,
                                                     struct sitter_error **err);

/*
 The same seed, pictures and options give the same subject. SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_seed(struct sitter_train_options *options,
                                            uint64_t seed,
                                            struct sitter_error **err);

/*
 Up to this share of the bits of each grid is turned over in what later grids see, so that they learn to mend it
 (bitwise self-correction, Infinity, arXiv 2412.04431, section 3.3). For families that draw scale after scale. 0 to
 1, default 0, for Infinity 0.3 (Infinity). SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_self_correction(struct sitter_train_options *options,
                                                       double self_correction,
                                                       struct sitter_error **err);

/*
 What the untouched model predicts: "correct", as it does when it draws, compared bit by bit, or "reference", as the
 released code of ARBooth computes it: each grid by itself, without those before it and at their places, compared by
 one softmax over all numbers of a token. Default "correct". SITTER_E_INVALID_ARGUMENT. Since 1.1.
 */
SITTER_API
sitter_status sitter_train_options_set_teacher(struct sitter_train_options *options,
                                               const char *teacher,
                                               struct sitter_error **err);

/*
 Prompts, each with one "{}" for the subject. Default empty: the 27 of Textual Inversion (paper). (NULL, 0) for none.
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_templates(struct sitter_train_options *options,
                                                 const char *const *templates,
                                                 size_t count,
                                                 struct sitter_error **err);

/*
 Whether the vectors go on learning in the layers stage. Default false (ours), "dreambooth" true.
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_train_embedding_in_layer_stage(struct sitter_train_options *options,
                                                                      int32_t train_embedding_in_layer_stage,
                                                                      struct sitter_error **err);

/*
 Which weights learn in the layers stage: "qkv", "attention", "mlp", "all" (norms included) or another role that the
 model has, or names of weights separated by commas, in which "*" stands for anything. "lora" is an older name for
 "qkv" with the adaptation "low_rank". Default "qkv" (the paper's count of weights fits no other set).
 SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_trainable(struct sitter_train_options *options,
                                                 const char *trainable,
                                                 struct sitter_error **err);

/*
 Whether the class word follows the identifier in the templates. Default true (paper). SITTER_E_INVALID_ARGUMENT.
 Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_use_class_word(struct sitter_train_options *options,
                                                      int32_t use_class_word,
                                                      struct sitter_error **err);

/*
 Steps over which the learning rate rises from 0 at the start of each stage. Default 0 (Lumina: a hundredth of an
 epoch). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_warmup_steps(struct sitter_train_options *options,
                                                    uint32_t warmup_steps,
                                                    struct sitter_error **err);

/*
 AdamW's decay per step, times the learning rate, of the transformer's weights; the vectors have none. 0 to 10,
 default 0.1 (Lumina). SITTER_E_INVALID_ARGUMENT. Since 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_weight_decay(struct sitter_train_options *options,
                                                    double weight_decay,
                                                    struct sitter_error **err);

/*
 Weight of the squared log-normaliser in the loss. 0 to 1, default 1e-5 (Lumina). SITTER_E_INVALID_ARGUMENT. Since
 1.0.
 */
SITTER_API
sitter_status sitter_train_options_set_z_loss(struct sitter_train_options *options,
                                              double z_loss,
                                              struct sitter_error **err);

/*
 The package version, for people: "0.1.0". Never NULL, valid for ever. Any thread. Since 1.0.
 */
SITTER_API const char *sitter_version_string(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SITTER_H */
