// Sitter for C++17: a header over sitter.h, compiled into the program, so not part of the ABI. Link with libsitter.
//
//     sitter::Model model = sitter::Model::open("embedded:");
//     sitter::Dataset pictures;
//     pictures.add(sitter::Image::open("1.png"));
//     sitter::TrainOptions how(model);
//     how.class_word("fox");
//     sitter::Subject fox = model.train(pictures, how);
//     model.decode(model.sample("a photo of a [V] fox", {fox}).front()).save_png("fox.png");
//
// Objects   Engine, Model, Image, Tokens, Subject and Evaluator are shared: a copy is one more reference to the same thing, which never
//           changes and may be used from several threads. Dataset, Evaluation, Run and the options can only be moved. Nothing is ever
//           null except after being moved from, which every function then answers with an error.
// Errors    A failed call throws sitter::Error; a cancelled one sitter::Cancelled, which is an Error. For code that would
//           rather look at a value, attempt() turns any call into a Result:
//               auto picture = sitter::attempt([&] { return model.decode(tokens); });
//               if (!picture) log(picture.error().what());
// Long calls Block, and take a Run *, nullptr for none, which serves one call. Its function gets each event on the calling
//           thread and returns true to go on. If it throws, the call stops and the exception comes out of it. Another thread
//           may call cancel(), finish_early() and snapshot() meanwhile.
// Text      std::string in UTF-8, paths too. Facts are JSON.
//
// What each function means, with its units and ranges, stands in sitter.h under the name of the C function it calls.
#ifndef SITTER_HPP
#define SITTER_HPP

#include "sitter.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace sitter {
// The number is the ABI's major version, so that two of them can be in one program.
inline namespace v1 {

using Event = sitter_event;

/// A failed call. what() is one line for people.
class Error : public std::runtime_error {
public:
    Error(sitter_status status, const std::string &message, std::string detail)
        : std::runtime_error(message), status_(status), detail_(std::move(detail)) {}

    /// SITTER_E_...
    sitter_status status() const noexcept { return status_; }
    /// Hundreds of the status: 1 the caller's mistake, 2 environment, 3 data, 4 control, 5 capability, 9 the library's.
    int group() const noexcept { return static_cast<int>(status_ / 100); }
    /// The chain of causes, a line each, often empty.
    const std::string &detail() const noexcept { return detail_; }

private:
    sitter_status status_;
    std::string detail_;
};

/// The call was cancelled.
class Cancelled : public Error {
public:
    using Error::Error;
};

/// A value, or the error that there is instead.
template <class T> class Result {
public:
    Result(T value) : value_(std::move(value)) {}
    Result(Error error) : error_(std::move(error)) {}

    explicit operator bool() const noexcept { return !error_; }
    /// The error; only if there is one.
    const Error &error() const { return error_.value(); }
    /// The value; throws the error if there is none.
    T &value() {
        if (error_) {
            throw *error_;
        }
        return *value_;
    }
    T &operator*() { return *value_; }
    T *operator->() { return &*value_; }

private:
    std::optional<T> value_;
    std::optional<Error> error_;
};

template <> class Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}

    explicit operator bool() const noexcept { return !error_; }
    const Error &error() const { return error_.value(); }

private:
    std::optional<Error> error_;
};

/// Makes a call and returns its result, or the sitter::Error that it threw; other exceptions pass.
template <class Call> auto attempt(Call &&call) -> Result<std::decay_t<decltype(call())>> {
    try {
        if constexpr (std::is_void_v<decltype(call())>) {
            call();
            return {};
        } else {
            return call();
        }
    } catch (const Error &error) {
        return error;
    }
}

namespace detail {

inline void release(sitter_dataset *p) noexcept { sitter_dataset_free(p); }
inline void release(sitter_engine *p) noexcept { sitter_engine_free(p); }
inline void release(sitter_engine_options *p) noexcept { sitter_engine_options_free(p); }
inline void release(sitter_error *p) noexcept { sitter_error_free(p); }
inline void release(sitter_evaluation *p) noexcept { sitter_evaluation_free(p); }
inline void release(sitter_evaluator *p) noexcept { sitter_evaluator_free(p); }
inline void release(sitter_evaluator_options *p) noexcept { sitter_evaluator_options_free(p); }
inline void release(sitter_image *p) noexcept { sitter_image_free(p); }
inline void release(sitter_model *p) noexcept { sitter_model_free(p); }
inline void release(sitter_model_options *p) noexcept { sitter_model_options_free(p); }
inline void release(sitter_run *p) noexcept { sitter_run_free(p); }
inline void release(sitter_sample_options *p) noexcept { sitter_sample_options_free(p); }
inline void release(sitter_scores *p) noexcept { sitter_scores_free(p); }
inline void release(sitter_subject *p) noexcept { sitter_subject_free(p); }
inline void release(sitter_tokens *p) noexcept { sitter_tokens_free(p); }
inline void release(sitter_train_options *p) noexcept { sitter_train_options_free(p); }

inline sitter_engine *retain(const sitter_engine *p) noexcept { return sitter_engine_ref(p); }
inline sitter_evaluator *retain(const sitter_evaluator *p) noexcept { return sitter_evaluator_ref(p); }
inline sitter_image *retain(const sitter_image *p) noexcept { return sitter_image_ref(p); }
inline sitter_model *retain(const sitter_model *p) noexcept { return sitter_model_ref(p); }
inline sitter_subject *retain(const sitter_subject *p) noexcept { return sitter_subject_ref(p); }
inline sitter_tokens *retain(const sitter_tokens *p) noexcept { return sitter_tokens_ref(p); }

template <class T> struct Release {
    void operator()(T *p) const noexcept { release(p); }
};

/// Owns a handle.
template <class T> class Owned {
public:
    explicit Owned(T *handle) noexcept : handle_(handle) {}
    /// The C handle, still owned by this object.
    T *get() const noexcept { return handle_.get(); }

private:
    std::unique_ptr<T, Release<T>> handle_;
};

/// Owns a reference to a shared handle; a copy owns one more.
template <class T> class Counted {
public:
    explicit Counted(T *handle) noexcept : handle_(handle) {}
    Counted(const Counted &other) noexcept : handle_(retain(other.get())) {}
    Counted(Counted &&) noexcept = default;
    Counted &operator=(Counted other) noexcept {
        handle_.swap(other.handle_);
        return *this;
    }
    ~Counted() = default;
    /// The C handle, still owned by this object.
    T *get() const noexcept { return handle_.get(); }

private:
    std::unique_ptr<T, Release<T>> handle_;
};

[[noreturn]] inline void fail(sitter_status status, const sitter_error *err) {
    // Without an error object, as when there was no memory for one, the name has to do.
    const std::string message = err ? sitter_error_message(err) : sitter_status_name(status);
    const std::string causes = sitter_error_detail(err);
    if (status == SITTER_E_CANCELLED) {
        throw Cancelled(status, message, causes);
    }
    throw Error(status, message, causes);
}

/// Calls `call(&err)` and throws if it fails.
template <class Call> void check(Call &&call) {
    sitter_error *err = nullptr;
    const sitter_status status = call(&err);
    const Owned<sitter_error> owner(err);
    if (status != SITTER_OK) {
        fail(status, err);
    }
}

/// Calls `call(&out, &err)` and returns the handle it made.
template <class T, class Call> T *make(Call &&call) {
    T *out = nullptr;
    check([&](sitter_error **err) { return call(&out, err); });
    return out;
}

/// Calls `call(buffer, capacity, &needed, &err)` for the size, and again for the content, until it fits.
template <class T, class Call> std::vector<T> copy(Call &&call) {
    std::size_t needed = 0;
    check([&](sitter_error **err) { return call(static_cast<T *>(nullptr), std::size_t{0}, &needed, err); });
    for (;;) {
        std::vector<T> values(needed);
        sitter_error *err = nullptr;
        const sitter_status status = call(values.data(), values.size(), &needed, &err);
        const Owned<sitter_error> owner(err);
        if (status == SITTER_OK) {
            values.resize(needed);
            return values;
        }
        if (status != SITTER_E_BUFFER_TOO_SMALL) {
            fail(status, err);
        }
    }
}

template <class Call> std::string text(Call &&call) {
    const std::vector<char> chars = copy<char>(call);
    return std::string(chars.data());
}

/// The handles of a list of objects, for as long as these live.
template <class T, class Object> std::vector<const T *> handles(const std::vector<Object> &objects) {
    std::vector<const T *> list;
    list.reserve(objects.size());
    for (const Object &object : objects) {
        list.push_back(object.get());
    }
    return list;
}

template <class Object> auto get_or_null(const Object *object) noexcept -> decltype(object->get()) {
    return object ? object->get() : nullptr;
}

} // namespace detail

/// Throws unless the library serves programs compiled with this header. To be called first.
inline void require_abi() {
    detail::check([](sitter_error **err) { return sitter_require_abi(SITTER_ABI_MAJOR, SITTER_ABI_MINOR, err); });
}

inline std::string version() { return sitter_version_string(); }
inline std::string build_info() { return sitter_build_info_json(); }
inline bool has_feature(const std::string &name) { return sitter_has_feature(name.c_str()) == 1; }
inline std::string devices() { return detail::text(sitter_devices_json); }
/// How much memory a model and the work with it would take, as JSON: see sitter_model_estimate_json. Nothing is opened; the
/// options may be null.
inline std::string estimate(const std::string &path, const sitter_model_options *options = nullptr,
                            const sitter_sample_options *sample = nullptr,
                            const sitter_train_options *train = nullptr) {
    return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
        return sitter_model_estimate_json(path.c_str(), options, sample, train, buffer, capacity, needed, err);
    });
}

class Tokens;

/// Events and controls of one long call.
class Run : public detail::Owned<sitter_run> {
public:
    /// Gets each event on the calling thread; returns true to go on, false to cancel.
    using Progress = std::function<bool(const Event &)>;

    explicit Run(Progress progress = nullptr)
        : Owned(detail::make<sitter_run>(sitter_run_new)), host_(std::make_unique<Host>()) {
        if (progress) {
            host_->progress = std::move(progress);
            detail::check(
                [&](sitter_error **err) { return sitter_run_set_callback(get(), &Run::call, host_.get(), err); });
        }
    }

    void cancel() const noexcept { sitter_run_cancel(get()); }
    void finish_early() const noexcept { sitter_run_finish_early(get()); }
    /// The complete rows, or scales, so far of a picture, from 0, of those that the call is drawing or drew last, as tokens that can be
    /// decoded: by another thread, with an engine that takes two jobs. Nothing while no row is complete, or if there is no
    /// such picture.
    std::optional<Tokens> tokens(std::uint32_t picture = 0) const;
    Event snapshot() const {
        Event event{};
        detail::check([&](sitter_error **err) { return sitter_run_snapshot(get(), &event, sizeof event, err); });
        return event;
    }

    /// What the progress function threw, if it did; out of a call that was given `run` and has returned.
    static void rethrow(const Run *run) {
        if (run && run->host_ && run->host_->thrown) {
            std::rethrow_exception(std::exchange(run->host_->thrown, nullptr));
        }
    }

private:
    /// Stays where it is when the run is moved.
    struct Host {
        Progress progress;
        std::exception_ptr thrown;
    };

    static std::int32_t call(void *user_data, const sitter_event *event) noexcept {
        Host &host = *static_cast<Host *>(user_data);
        try {
            return host.progress(*event) ? SITTER_CONTINUE : 0;
        } catch (...) {
            // Heartbeats may come until the work notices; the first exception is the reason.
            if (!host.thrown) {
                host.thrown = std::current_exception();
            }
            return 0;
        }
    }

    std::unique_ptr<Host> host_;
};

namespace detail {

/// An exception of the progress function goes before the cancellation that it caused. If there is one, the call failed: what
/// does not return SITTER_CONTINUE cancels.
template <class Call> void guarded(const Run *run, Call &&call) {
    sitter_error *err = nullptr;
    const sitter_status status = call(&err);
    const Owned<sitter_error> owner(err);
    Run::rethrow(run);
    if (status != SITTER_OK) {
        fail(status, err);
    }
}

/// A long call that gives a handle, as the object that owns it.
template <class Object, class T, class Call> Object produce(const Run *run, Call &&call) {
    T *out = nullptr;
    guarded(run, [&](sitter_error **err) { return call(&out, err); });
    return Object(out);
}

} // namespace detail

/// How an engine is to be made.
class EngineOptions : public detail::Owned<sitter_engine_options> {
public:
    /// Gets a log line (SITTER_LOG_..., text), on any thread, several at once. What it throws is lost.
    using Log = std::function<void(std::int32_t, const char *)>;

    EngineOptions() : Owned(detail::make<sitter_engine_options>(sitter_engine_options_new)) {}

    EngineOptions &log(Log log) {
        auto owner = std::make_unique<Log>(std::move(log));
        // The library calls drop in every case, also if the call fails.
        detail::check([&](sitter_error **err) {
            return sitter_engine_options_set_log(get(), &EngineOptions::write, owner.release(), &EngineOptions::drop, err);
        });
        return *this;
    }

    // Setters of sitter_engine_options, made by tests/abi from src/capi.
    EngineOptions &log_level(std::int32_t level) {
        detail::check([&](sitter_error **err) {
            return sitter_engine_options_set_log_level(get(), level, err);
        });
        return *this;
    }
    EngineOptions &max_jobs(std::uint32_t max_jobs) {
        detail::check([&](sitter_error **err) {
            return sitter_engine_options_set_max_jobs(get(), max_jobs, err);
        });
        return *this;
    }
    EngineOptions &threads(std::uint32_t threads) {
        detail::check([&](sitter_error **err) {
            return sitter_engine_options_set_threads(get(), threads, err);
        });
        return *this;
    }
    // End of setters.

private:
    static void write(void *user_data, std::int32_t level, const char *line) noexcept {
        try {
            (*static_cast<Log *>(user_data))(level, line);
        } catch (...) {
        }
    }
    static void drop(void *user_data) noexcept { delete static_cast<Log *>(user_data); }
};

/// Threads and log that several models share.
class Engine : public detail::Counted<sitter_engine> {
public:
    using Counted::Counted;
    /// All cores, one job at a time, no log.
    Engine() : Counted(make(nullptr)) {}
    explicit Engine(const EngineOptions &options) : Counted(make(options.get())) {}

    /// The log lines that have gathered.
    std::string drain_log() const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_engine_drain_log(get(), buffer, capacity, needed, err);
        });
    }

private:
    static sitter_engine *make(const sitter_engine_options *options) {
        return detail::make<sitter_engine>(
            [&](sitter_engine **out, sitter_error **err) { return sitter_engine_new(options, out, err); });
    }
};

/// An RGB picture of eight bits per channel.
class Image : public detail::Counted<sitter_image> {
public:
    using Counted::Counted;

    struct Size {
        std::uint32_t width, height;
    };

    /// Reads a PNG, JPEG or WebP file.
    static Image open(const std::string &path) {
        return Image(detail::make<sitter_image>(
            [&](sitter_image **out, sitter_error **err) { return sitter_image_open(path.c_str(), out, err); }));
    }
    /// From `height` rows of `width` RGB pixels of a byte per channel, `row_stride_bytes` apart (0: without gaps).
    static Image from_rgb8(const std::uint8_t *pixels, Size size, std::size_t row_stride_bytes = 0) {
        return Image(detail::make<sitter_image>([&](sitter_image **out, sitter_error **err) {
            return sitter_image_from_rgb8(pixels, size.width, size.height, row_stride_bytes, out, err);
        }));
    }
    /// From RGBA pixels, the colour not multiplied with the opacity: laid on white, and a training learns what is opaque only.
    static Image from_rgba8(const std::uint8_t *pixels, Size size, std::size_t row_stride_bytes = 0) {
        return Image(detail::make<sitter_image>([&](sitter_image **out, sitter_error **err) {
            return sitter_image_from_rgba8(pixels, size.width, size.height, row_stride_bytes, out, err);
        }));
    }
    /// From floats, 0 to 1.
    static Image from_f32(const float *pixels, Size size, std::size_t row_stride_bytes = 0) {
        return Image(detail::make<sitter_image>([&](sitter_image **out, sitter_error **err) {
            return sitter_image_from_f32(pixels, size.width, size.height, row_stride_bytes, out, err);
        }));
    }

    Size size() const {
        Size size{};
        detail::check([&](sitter_error **err) { return sitter_image_size(get(), &size.width, &size.height, err); });
        return size;
    }
    /// height x width x 3 bytes.
    std::vector<std::uint8_t> rgb8() const {
        return detail::copy<std::uint8_t>([&](auto *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_image_copy_rgb8(get(), buffer, capacity, needed, err);
        });
    }
    /// height x width x 3 numbers, 0 to 1.
    std::vector<float> f32() const {
        return detail::copy<float>([&](auto *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_image_copy_f32(get(), buffer, capacity, needed, err);
        });
    }
    void save_png(const std::string &path) const {
        detail::check([&](sitter_error **err) { return sitter_image_save_png(get(), path.c_str(), err); });
    }
};

/// The image tokens of one picture: a grid, or one for each scale.
class Tokens : public detail::Counted<sitter_tokens> {
public:
    using Counted::Counted;

    struct Grid {
        std::uint32_t width, height;
    };

    /// From indices into the codebook, rows top to bottom; there must be width x height of them.
    static Tokens from_codes(const std::vector<std::uint32_t> &codes, Grid grid) {
        if (codes.size() != std::uint64_t{grid.width} * grid.height) {
            throw Error(SITTER_E_INVALID_ARGUMENT, "codes: not as many as the grid has places", "");
        }
        return Tokens(detail::make<sitter_tokens>([&](sitter_tokens **out, sitter_error **err) {
            return sitter_tokens_from_array(codes.data(), grid.width, grid.height, out, err);
        }));
    }

    /// From indices of several grids, coarse to fine, one grid's behind the other's.
    static Tokens from_codes(const std::vector<std::uint32_t> &codes, const std::vector<Grid> &grids) {
        std::uint64_t places = 0;
        std::vector<std::uint32_t> widths, heights;
        for (const Grid &grid : grids) {
            places += std::uint64_t{grid.width} * grid.height;
            widths.push_back(grid.width);
            heights.push_back(grid.height);
        }
        if (codes.size() != places) {
            throw Error(SITTER_E_INVALID_ARGUMENT, "codes: not as many as the grids have places", "");
        }
        return Tokens(detail::make<sitter_tokens>([&](sitter_tokens **out, sitter_error **err) {
            return sitter_tokens_from_grids(codes.data(), widths.data(), heights.data(), grids.size(), out, err);
        }));
    }

    /// Of several grids, the last one.
    Grid grid() const {
        Grid grid{};
        detail::check([&](sitter_error **err) { return sitter_tokens_grid(get(), &grid.width, &grid.height, err); });
        return grid;
    }
    /// All grids, coarse to fine: one, or one for each scale of models that draw scale after scale.
    std::vector<Grid> grids() const {
        std::size_t count = 0;
        detail::check([&](sitter_error **err) { return sitter_tokens_grid_count(get(), &count, err); });
        std::vector<Grid> grids(count);
        for (std::size_t i = 0; i < count; ++i) {
            detail::check([&](sitter_error **err) {
                return sitter_tokens_grid_at(get(), i, &grids[i].width, &grids[i].height, err);
            });
        }
        return grids;
    }
    /// Of all grids, one behind the other.
    std::vector<std::uint32_t> codes() const {
        return detail::copy<std::uint32_t>(
            [&](auto *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
                return sitter_tokens_copy(get(), buffer, capacity, needed, err);
            });
    }
};

inline std::optional<Tokens> Run::tokens(std::uint32_t picture) const {
    sitter_tokens *out = nullptr;
    sitter_error *err = nullptr;
    const sitter_status status = sitter_run_tokens(get(), picture, &out, &err);
    const detail::Owned<sitter_error> owner(err);
    if (status == SITTER_OK) {
        return Tokens(out);
    }
    if (status == SITTER_E_INVALID_STATE) {
        return std::nullopt;
    }
    detail::fail(status, err);
}

/// What training learned about one subject.
class Subject : public detail::Counted<sitter_subject> {
public:
    using Counted::Counted;

    struct Loss {
        /// SITTER_STAGE_EMBEDDING or SITTER_STAGE_LAYERS.
        std::int32_t stage;
        /// Within the stage, from 0.
        std::uint64_t step;
        /// Nats per token.
        double loss;
    };

    static Subject load(const std::string &path) {
        return Subject(detail::make<sitter_subject>(
            [&](sitter_subject **out, sitter_error **err) { return sitter_subject_load(path.c_str(), out, err); }));
    }
    void save(const std::string &path) const {
        detail::check([&](sitter_error **err) { return sitter_subject_save(get(), path.c_str(), err); });
    }
    /// A JSON object.
    std::string info() const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_subject_info_json(get(), buffer, capacity, needed, err);
        });
    }
    std::vector<Loss> losses() const {
        std::size_t count = 0;
        detail::check([&](sitter_error **err) {
            return sitter_subject_losses(get(), nullptr, nullptr, nullptr, 0, &count, err);
        });
        std::vector<std::int32_t> stages(count);
        std::vector<std::uint64_t> steps(count);
        std::vector<double> losses(count);
        detail::check([&](sitter_error **err) {
            return sitter_subject_losses(get(), stages.data(), steps.data(), losses.data(), count, &count, err);
        });
        std::vector<Loss> list;
        for (std::size_t i = 0; i < count; i++) {
            list.push_back({stages[i], steps[i], losses[i]});
        }
        return list;
    }
};

/// Reference pictures of one subject, with a caption for each or for none.
class Dataset : public detail::Owned<sitter_dataset> {
public:
    Dataset() : Owned(detail::make<sitter_dataset>(sitter_dataset_new)) {}

    Dataset &add(const Image &image) { return append(image, nullptr); }
    Dataset &add(const Image &image, const std::string &caption) { return append(image, caption.c_str()); }
    std::size_t count() const {
        std::size_t count = 0;
        detail::check([&](sitter_error **err) { return sitter_dataset_count(get(), &count, err); });
        return count;
    }

private:
    Dataset &append(const Image &image, const char *caption) {
        detail::check([&](sitter_error **err) { return sitter_dataset_add(get(), image.get(), caption, err); });
        return *this;
    }
};

/// How to open a model.
class ModelOptions : public detail::Owned<sitter_model_options> {
public:
    ModelOptions() : Owned(detail::make<sitter_model_options>(sitter_model_options_new)) {}

    /// All options with their values, as a JSON object.
    std::string json() const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_model_options_get_json(get(), buffer, capacity, needed, err);
        });
    }

    // Setters of sitter_model_options, made by tests/abi from src/capi.
    ModelOptions &device(const std::string &device) {
        detail::check([&](sitter_error **err) {
            return sitter_model_options_set_device(get(), device.c_str(), err);
        });
        return *this;
    }
    ModelOptions &dtype(const std::string &dtype) {
        detail::check([&](sitter_error **err) {
            return sitter_model_options_set_dtype(get(), dtype.c_str(), err);
        });
        return *this;
    }
    ModelOptions &keep_quantised(bool keep_quantised) {
        detail::check([&](sitter_error **err) {
            return sitter_model_options_set_keep_quantised(get(), keep_quantised ? 1 : 0, err);
        });
        return *this;
    }
    ModelOptions &text_encoder(const std::string &text_encoder) {
        detail::check([&](sitter_error **err) {
            return sitter_model_options_set_text_encoder(get(), text_encoder.c_str(), err);
        });
        return *this;
    }
    // End of setters.
};

class Model;

/// How to draw.
class SampleOptions : public detail::Owned<sitter_sample_options> {
public:
    /// The defaults of the paper (arXiv 2504.13162).
    SampleOptions() : SampleOptions(static_cast<const sitter_model *>(nullptr)) {}
    /// What the model recommends.
    explicit SampleOptions(const Model &model);
    /// What the model in a folder recommends, which is not opened.
    static SampleOptions for_folder(const std::string &path) {
        return SampleOptions(detail::make<sitter_sample_options>([&](sitter_sample_options **out, sitter_error **err) {
            return sitter_sample_options_for_folder(path.c_str(), out, err);
        }));
    }

    /// All options with their values, as a JSON object.
    std::string json() const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_sample_options_get_json(get(), buffer, capacity, needed, err);
        });
    }

    // Setters of sitter_sample_options, made by tests/abi from src/capi.
    SampleOptions &decoding(const std::string &decoding) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_decoding(get(), decoding.c_str(), err);
        });
        return *this;
    }
    SampleOptions &guidance(double guidance) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_guidance(get(), guidance, err);
        });
        return *this;
    }
    SampleOptions &guidance_by_scale(const std::vector<float> &guidance_by_scale) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_guidance_by_scale(get(), guidance_by_scale.data(), guidance_by_scale.size(), err);
        });
        return *this;
    }
    SampleOptions &height(std::uint32_t height) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_height(get(), height, err);
        });
        return *this;
    }
    SampleOptions &seed(std::uint64_t seed) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_seed(get(), seed, err);
        });
        return *this;
    }
    SampleOptions &temperature(double temperature) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_temperature(get(), temperature, err);
        });
        return *this;
    }
    SampleOptions &temperature_by_scale(const std::vector<float> &temperature_by_scale) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_temperature_by_scale(get(), temperature_by_scale.data(), temperature_by_scale.size(), err);
        });
        return *this;
    }
    SampleOptions &top_k(std::uint32_t top_k) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_top_k(get(), top_k, err);
        });
        return *this;
    }
    SampleOptions &top_p(double top_p) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_top_p(get(), top_p, err);
        });
        return *this;
    }
    SampleOptions &width(std::uint32_t width) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_width(get(), width, err);
        });
        return *this;
    }
    SampleOptions &window(std::uint32_t window) {
        detail::check([&](sitter_error **err) {
            return sitter_sample_options_set_window(get(), window, err);
        });
        return *this;
    }
    // End of setters.

private:
    explicit SampleOptions(sitter_sample_options *handle) noexcept : Owned(handle) {}
    explicit SampleOptions(const sitter_model *model)
        : Owned(detail::make<sitter_sample_options>([&](sitter_sample_options **out, sitter_error **err) {
              return sitter_sample_options_new(model, out, err);
          })) {}
};

/// How to teach a subject. The class word has to be set.
class TrainOptions : public detail::Owned<sitter_train_options> {
public:
    /// The defaults of the paper (arXiv 2504.13162).
    explicit TrainOptions(const std::string &method = "")
        : TrainOptions(static_cast<const sitter_model *>(nullptr), method) {}
    /// What the model recommends for a method: "two_stage", "textual_inversion", "dreambooth", "lora" or "arbooth"; without one
    /// the method that its family has by default.
    explicit TrainOptions(const Model &model, const std::string &method = "");
    /// What the model in a folder recommends for a method, which is not opened.
    static TrainOptions for_folder(const std::string &path, const std::string &method = "") {
        return TrainOptions(detail::make<sitter_train_options>([&](sitter_train_options **out, sitter_error **err) {
            return sitter_train_options_for_folder(path.c_str(), method.empty() ? nullptr : method.c_str(), out, err);
        }));
    }

    /// All options with their values, as a JSON object.
    std::string json() const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_train_options_get_json(get(), buffer, capacity, needed, err);
        });
    }

    // Setters of sitter_train_options, made by tests/abi from src/capi.
    TrainOptions &accumulation(std::uint32_t accumulation) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_accumulation(get(), accumulation, err);
        });
        return *this;
    }
    TrainOptions &adaptation(const std::string &adaptation) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_adaptation(get(), adaptation.c_str(), err);
        });
        return *this;
    }
    TrainOptions &augment(std::uint32_t augment) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_augment(get(), augment, err);
        });
        return *this;
    }
    TrainOptions &augment_aligned(bool augment_aligned) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_augment_aligned(get(), augment_aligned ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &batch_size(std::uint32_t batch_size) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_batch_size(get(), batch_size, err);
        });
        return *this;
    }
    TrainOptions &beta1(double beta1) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_beta1(get(), beta1, err);
        });
        return *this;
    }
    TrainOptions &beta2(double beta2) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_beta2(get(), beta2, err);
        });
        return *this;
    }
    TrainOptions &checkpoint_every(std::uint32_t checkpoint_every) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_checkpoint_every(get(), checkpoint_every, err);
        });
        return *this;
    }
    TrainOptions &checkpoint_path(const std::string &checkpoint_path) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_checkpoint_path(get(), checkpoint_path.c_str(), err);
        });
        return *this;
    }
    TrainOptions &class_word(const std::string &class_word) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_class_word(get(), class_word.c_str(), err);
        });
        return *this;
    }
    TrainOptions &clip_norm(double clip_norm) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_clip_norm(get(), clip_norm, err);
        });
        return *this;
    }
    TrainOptions &cooldown_steps(std::uint32_t cooldown_steps) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_cooldown_steps(get(), cooldown_steps, err);
        });
        return *this;
    }
    TrainOptions &dropout(double dropout) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_dropout(get(), dropout, err);
        });
        return *this;
    }
    TrainOptions &early_stop(std::uint32_t early_stop) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_early_stop(get(), early_stop, err);
        });
        return *this;
    }
    TrainOptions &embedding_learning_rate(double embedding_learning_rate) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_embedding_learning_rate(get(), embedding_learning_rate, err);
        });
        return *this;
    }
    TrainOptions &embedding_steps(std::uint32_t embedding_steps) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_embedding_steps(get(), embedding_steps, err);
        });
        return *this;
    }
    TrainOptions &embedding_vectors(std::uint32_t embedding_vectors) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_embedding_vectors(get(), embedding_vectors, err);
        });
        return *this;
    }
    TrainOptions &flip(bool flip) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_flip(get(), flip ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &guidance_dropout(double guidance_dropout) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_guidance_dropout(get(), guidance_dropout, err);
        });
        return *this;
    }
    TrainOptions &identifier(const std::string &identifier) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_identifier(get(), identifier.c_str(), err);
        });
        return *this;
    }
    TrainOptions &image_size(std::uint32_t image_size) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_image_size(get(), image_size, err);
        });
        return *this;
    }
    TrainOptions &initial_embedding(const std::vector<float> &initial_embedding) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_initial_embedding(get(), initial_embedding.data(), initial_embedding.size(), err);
        });
        return *this;
    }
    TrainOptions &initial_noise(double initial_noise) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_initial_noise(get(), initial_noise, err);
        });
        return *this;
    }
    TrainOptions &initial_word(const std::string &initial_word) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_initial_word(get(), initial_word.c_str(), err);
        });
        return *this;
    }
    TrainOptions &keep_gradients(bool keep_gradients) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_keep_gradients(get(), keep_gradients ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &layer_learning_rate(double layer_learning_rate) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_layer_learning_rate(get(), layer_learning_rate, err);
        });
        return *this;
    }
    TrainOptions &layer_steps(std::uint32_t layer_steps) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_layer_steps(get(), layer_steps, err);
        });
        return *this;
    }
    TrainOptions &layer_stride(std::uint32_t layer_stride) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_layer_stride(get(), layer_stride, err);
        });
        return *this;
    }
    TrainOptions &layers(const std::vector<std::uint32_t> &layers) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_layers(get(), layers.data(), layers.size(), err);
        });
        return *this;
    }
    TrainOptions &lora_alpha(double lora_alpha) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_lora_alpha(get(), lora_alpha, err);
        });
        return *this;
    }
    TrainOptions &lora_rank(std::uint32_t lora_rank) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_lora_rank(get(), lora_rank, err);
        });
        return *this;
    }
    TrainOptions &masked_training(bool masked_training) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_masked_training(get(), masked_training ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &master_weights(bool master_weights) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_master_weights(get(), master_weights ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &optimizer_device(const std::string &optimizer_device) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_optimizer_device(get(), optimizer_device.c_str(), err);
        });
        return *this;
    }
    TrainOptions &optimizer_state(const std::string &optimizer_state) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_optimizer_state(get(), optimizer_state.c_str(), err);
        });
        return *this;
    }
    TrainOptions &per_image_tokens(bool per_image_tokens) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_per_image_tokens(get(), per_image_tokens ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &prior_count(std::uint32_t prior_count) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_prior_count(get(), prior_count, err);
        });
        return *this;
    }
    TrainOptions &prior_distillation(bool prior_distillation) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_prior_distillation(get(), prior_distillation ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &prior_weight(double prior_weight) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_prior_weight(get(), prior_weight, err);
        });
        return *this;
    }
    TrainOptions &random_crop(bool random_crop) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_random_crop(get(), random_crop ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &recompute(const std::string &recompute) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_recompute(get(), recompute.c_str(), err);
        });
        return *this;
    }
    TrainOptions &sample_every(std::uint32_t sample_every) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_sample_every(get(), sample_every, err);
        });
        return *this;
    }
    TrainOptions &sample_prompt(const std::string &sample_prompt) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_sample_prompt(get(), sample_prompt.c_str(), err);
        });
        return *this;
    }
    TrainOptions &scale_weights(const std::vector<float> &scale_weights) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_scale_weights(get(), scale_weights.data(), scale_weights.size(), err);
        });
        return *this;
    }
    TrainOptions &seed(std::uint64_t seed) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_seed(get(), seed, err);
        });
        return *this;
    }
    TrainOptions &self_correction(double self_correction) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_self_correction(get(), self_correction, err);
        });
        return *this;
    }
    TrainOptions &teacher(const std::string &teacher) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_teacher(get(), teacher.c_str(), err);
        });
        return *this;
    }
    TrainOptions &templates(const std::vector<std::string> &templates) {
        std::vector<const char *> list;
        for (const std::string &entry : templates) {
            list.push_back(entry.c_str());
        }
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_templates(get(), list.data(), list.size(), err);
        });
        return *this;
    }
    TrainOptions &train_embedding_in_layer_stage(bool train_embedding_in_layer_stage) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_train_embedding_in_layer_stage(get(), train_embedding_in_layer_stage ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &trainable(const std::string &trainable) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_trainable(get(), trainable.c_str(), err);
        });
        return *this;
    }
    TrainOptions &use_class_word(bool use_class_word) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_use_class_word(get(), use_class_word ? 1 : 0, err);
        });
        return *this;
    }
    TrainOptions &warmup_steps(std::uint32_t warmup_steps) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_warmup_steps(get(), warmup_steps, err);
        });
        return *this;
    }
    TrainOptions &weight_decay(double weight_decay) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_weight_decay(get(), weight_decay, err);
        });
        return *this;
    }
    TrainOptions &z_loss(double z_loss) {
        detail::check([&](sitter_error **err) {
            return sitter_train_options_set_z_loss(get(), z_loss, err);
        });
        return *this;
    }
    // End of setters.

private:
    explicit TrainOptions(sitter_train_options *handle) noexcept : Owned(handle) {}
    TrainOptions(const sitter_model *model, const std::string &method)
        : Owned(detail::make<sitter_train_options>([&](sitter_train_options **out, sitter_error **err) {
              return sitter_train_options_new(model, method.empty() ? nullptr : method.c_str(), out, err);
          })) {}
};

/// A pretrained model.
class Model : public detail::Counted<sitter_model> {
public:
    using Counted::Counted;

    /// A model folder, "embedded:", or "embedded:infinity" where the build has it.
    static Model open(const std::string &path, const ModelOptions *options = nullptr, const Engine *engine = nullptr,
                      Run *run = nullptr) {
        return detail::produce<Model, sitter_model>(run, [&](sitter_model **out, sitter_error **err) {
            return sitter_model_open(detail::get_or_null(engine), path.c_str(), detail::get_or_null(options),
                                     detail::get_or_null(run), out, err);
        });
    }

    /// A JSON object.
    std::string info() const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_model_info_json(get(), buffer, capacity, needed, err);
        });
    }

    Tokens encode(const Image &image, std::uint32_t target_px = 0, Run *run = nullptr) const {
        return detail::produce<Tokens, sitter_tokens>(run, [&](sitter_tokens **out, sitter_error **err) {
            return sitter_tokens_encode(get(), image.get(), target_px, detail::get_or_null(run), out, err);
        });
    }

    Image decode(const Tokens &tokens, Run *run = nullptr) const {
        return detail::produce<Image, sitter_image>(run, [&](sitter_image **out, sitter_error **err) {
            return sitter_image_decode(get(), tokens.get(), detail::get_or_null(run), out, err);
        });
    }

    /// `count` pictures of a prompt, which names the subjects by their identifiers.
    std::vector<Tokens> sample(const std::string &prompt, const std::vector<Subject> &subjects = {},
                               const SampleOptions *options = nullptr, std::size_t count = 1,
                               Run *run = nullptr) const {
        const auto known = detail::handles<sitter_subject>(subjects);
        std::vector<sitter_tokens *> out(count);
        std::vector<Tokens> drawn;
        drawn.reserve(count);
        detail::guarded(run, [&](sitter_error **err) {
            return sitter_tokens_sample(get(), prompt.c_str(), known.data(), known.size(), detail::get_or_null(options),
                                        detail::get_or_null(run), out.data(), count, err);
        });
        for (sitter_tokens *tokens : out) {
            drawn.emplace_back(tokens);
        }
        return drawn;
    }

    /// Mean nats per labelled token of each picture under the prompt; lower is likelier.
    std::vector<double> score(const std::string &prompt, const std::vector<Tokens> &pictures,
                              const std::vector<Subject> &subjects = {}, Run *run = nullptr) const {
        const auto known = detail::handles<sitter_subject>(subjects);
        const auto scored = detail::handles<sitter_tokens>(pictures);
        std::vector<double> scores(pictures.size() + 1); // never NULL
        detail::guarded(run, [&](sitter_error **err) {
            return sitter_tokens_score(get(), prompt.c_str(), known.data(), known.size(), scored.data(), scored.size(),
                                       detail::get_or_null(run), scores.data(), err);
        });
        scores.pop_back();
        return scores;
    }

    Subject train(const Dataset &pictures, const TrainOptions &options, Run *run = nullptr) const {
        return detail::produce<Subject, sitter_subject>(run, [&](sitter_subject **out, sitter_error **err) {
            return sitter_subject_train(get(), pictures.get(), options.get(), detail::get_or_null(run), out, err);
        });
    }
};

inline SampleOptions::SampleOptions(const Model &model) : SampleOptions(model.get()) {}
inline TrainOptions::TrainOptions(const Model &model, const std::string &method) : TrainOptions(model.get(), method) {}

/// Where the networks of an evaluator are; at least one has to be given.
class EvaluatorOptions : public detail::Owned<sitter_evaluator_options> {
public:
    EvaluatorOptions() : Owned(detail::make<sitter_evaluator_options>(sitter_evaluator_options_new)) {}

    /// All options with their values, as a JSON object.
    std::string json() const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_evaluator_options_get_json(get(), buffer, capacity, needed, err);
        });
    }

    // Setters of sitter_evaluator_options, made by tests/abi from src/capi.
    EvaluatorOptions &clip(const std::string &clip) {
        detail::check([&](sitter_error **err) {
            return sitter_evaluator_options_set_clip(get(), clip.c_str(), err);
        });
        return *this;
    }
    EvaluatorOptions &dino(const std::string &dino) {
        detail::check([&](sitter_error **err) {
            return sitter_evaluator_options_set_dino(get(), dino.c_str(), err);
        });
        return *this;
    }
    EvaluatorOptions &lpips(const std::string &lpips) {
        detail::check([&](sitter_error **err) {
            return sitter_evaluator_options_set_lpips(get(), lpips.c_str(), err);
        });
        return *this;
    }
    // End of setters.
};

/// Pictures of one subject that are to be measured, with what they are compared with.
class Evaluation : public detail::Owned<sitter_evaluation> {
public:
    explicit Evaluation(const std::string &protocol = "B")
        : Owned(detail::make<sitter_evaluation>(sitter_evaluation_new)) {
        detail::check([&](sitter_error **err) { return sitter_evaluation_set_protocol(get(), protocol.c_str(), err); });
    }

    /// The subject's word in prompts, for the score of whole prompts.
    Evaluation &identifier(const std::string &identifier) {
        detail::check(
            [&](sitter_error **err) { return sitter_evaluation_set_identifier(get(), identifier.c_str(), err); });
        return *this;
    }
    /// A picture in a role, SITTER_ROLE_...; `text` is what it was to show, with {} in the place of the identifier.
    Evaluation &add(std::int32_t role, const Image &image, const std::string &text = "") {
        detail::check([&](sitter_error **err) {
            return sitter_evaluation_add_image(get(), role, image.get(), text.c_str(), err);
        });
        return *this;
    }
    /// A picture file, which is read when its turn comes.
    Evaluation &add_file(std::int32_t role, const std::string &path, const std::string &text = "") {
        detail::check([&](sitter_error **err) {
            return sitter_evaluation_add_file(get(), role, path.c_str(), text.c_str(), err);
        });
        return *this;
    }
};

/// Networks that measure pictures as the papers do.
class Evaluator : public detail::Counted<sitter_evaluator> {
public:
    using Counted::Counted;
    using Vectors = std::vector<std::vector<float>>;

    static Evaluator open(const EvaluatorOptions &options, const Engine *engine = nullptr, Run *run = nullptr) {
        return detail::produce<Evaluator, sitter_evaluator>(run, [&](sitter_evaluator **out, sitter_error **err) {
            return sitter_evaluator_open(detail::get_or_null(engine), options.get(), detail::get_or_null(run), out, err);
        });
    }

    /// A JSON object.
    std::string info() const {
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_evaluator_info_json(get(), buffer, capacity, needed, err);
        });
    }

    /// DINO's vector of each image, as the network gives it.
    Vectors dino(const std::vector<Image> &images, Run *run = nullptr) const {
        return of_images(sitter_evaluator_dino, images, run);
    }
    /// CLIP's vector of each image.
    Vectors clip_image(const std::vector<Image> &images, Run *run = nullptr) const {
        return of_images(sitter_evaluator_clip_image, images, run);
    }
    /// CLIP's vector of each text.
    Vectors clip_text(const std::vector<std::string> &texts, Run *run = nullptr) const {
        std::vector<const char *> list;
        for (const std::string &text : texts) {
            list.push_back(text.c_str());
        }
        return vectors(list, sitter_evaluator_clip_text, run);
    }

    /// The scores as a JSON object: see sitter_scores_json.
    std::string score(const Evaluation &evaluation, Run *run = nullptr) const {
        const auto scores =
            detail::produce<detail::Owned<sitter_scores>, sitter_scores>(run, [&](sitter_scores **out, sitter_error **err) {
                return sitter_evaluator_score(get(), evaluation.get(), detail::get_or_null(run), out, err);
            });
        return detail::text([&](char *buffer, std::size_t capacity, std::size_t *needed, sitter_error **err) {
            return sitter_scores_json(scores.get(), buffer, capacity, needed, err);
        });
    }

private:
    template <class Function> Vectors of_images(Function function, const std::vector<Image> &images, Run *run) const {
        return vectors(detail::handles<sitter_image>(images), function, run);
    }

    /// Asks how many numbers there will be, and computes them.
    template <class Item, class Function>
    Vectors vectors(const std::vector<Item> &items, Function function, Run *run) const {
        std::size_t needed = 0;
        detail::check([&](sitter_error **err) {
            return function(get(), items.data(), items.size(), nullptr, nullptr, 0, &needed, err);
        });
        std::vector<float> numbers(needed + 1); // never NULL
        detail::guarded(run, [&](sitter_error **err) {
            return function(get(), items.data(), items.size(), detail::get_or_null(run), numbers.data(), needed, &needed, err);
        });
        Vectors list;
        const auto size = static_cast<std::ptrdiff_t>(items.empty() ? 0 : needed / items.size());
        for (std::size_t i = 0; i < items.size(); i++) {
            const auto first = numbers.begin() + static_cast<std::ptrdiff_t>(i) * size;
            list.emplace_back(first, first + size);
        }
        return list;
    }
};

} // namespace v1
} // namespace sitter

#endif // SITTER_HPP
