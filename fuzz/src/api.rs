//! Random calls of the C functions, right ones and wrong ones, on the fake model: every one comes back with a status that
//! the header names, and whatever was done before, the library goes on working.

use sitter::capi::dataset::*;
use sitter::capi::engine::*;
use sitter::capi::error::*;
use sitter::capi::image::*;
use sitter::capi::model::*;
use sitter::capi::nouns::*;
use sitter::capi::options::*;
use sitter::capi::run::*;
use sitter::capi::setters::*;
use sitter::capi::status::*;
use sitter::capi::subject::*;
use sitter::capi::tokens::*;
use sitter::capi::version::sitter_status_name;
use std::ffi::{c_void, CStr};
use std::ptr::null_mut;

/// Ends a sequence, so that an input cannot run for long.
const MAX_CALLS: usize = 64;
const MAX_HANDLES: usize = 32;

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    /// A number that is often small and sometimes anything.
    fn number(&mut self) -> u32 {
        match self.byte() {
            b @ 0..=199 => u32::from(b % 8),
            b @ 200..=249 => u32::from(b) << (self.byte() % 25),
            _ => u32::MAX - u32::from(self.byte()),
        }
    }

    fn text(&mut self) -> &'static CStr {
        match self.byte() % 8 {
            0 => c"",
            1 => c"[V]",
            2 => c"fox",
            3 => c"a photo of a [V] fox",
            4 => c"two_stage",
            5 => c"a {} b",
            // Not UTF-8.
            6 => c"x\xff\xfe",
            _ => c"/no/such/folder/file",
        }
    }
}

type Freer = unsafe fn(*mut c_void);

/// Living handles with the function that frees each.
#[derive(Default)]
struct Pool(Vec<(*mut c_void, Freer)>);

impl Pool {
    /// Any handle of any kind, or NULL.
    fn any<T>(&self, input: &mut Input) -> *mut T {
        let at = usize::from(input.byte());
        match self.0.len() {
            n if n > 0 && at < 240 => self.0[at % n].0.cast(),
            _ => null_mut(),
        }
    }

    /// Any handle that is freed by `freer`, if there is one; sometimes another.
    fn of<T>(&self, input: &mut Input, freer: Freer) -> *mut T {
        let at = usize::from(input.byte());
        let fitting: Vec<_> = self.0.iter().filter(|(_, f)| std::ptr::fn_addr_eq(*f, freer)).collect();
        match fitting.len() {
            n if n > 0 && at < 230 => fitting[at % n].0.cast(),
            _ => self.any(input),
        }
    }

    fn keep<T>(&mut self, made: *mut T, freer: Freer) {
        if !made.is_null() {
            self.0.push((made.cast(), freer));
        }
    }
}

macro_rules! freers {
    ($($name:ident = $free:ident;)*) => {
        $(unsafe fn $name(at: *mut c_void) {
            // SAFETY: the caller passes a handle of this kind.
            unsafe { $free(at.cast()) }
        })*
    };
}

freers! {
    engine = sitter_engine_free;
    engine_options = sitter_engine_options_free;
    model = sitter_model_free;
    sample_options = sitter_sample_options_free;
    train_options = sitter_train_options_free;
    image = sitter_image_free;
    tokens = sitter_tokens_free;
    dataset = sitter_dataset_free;
    subject = sitter_subject_free;
    run = sitter_run_free;
}

/// What the callback answers, call by call, and the run that it may stop.
struct Answers {
    answers: [u8; 4],
    calls: usize,
}

unsafe extern "C" fn on_event(user_data: *mut c_void, event: *const sitter_event) -> i32 {
    // SAFETY: lives until the sequence is over; the event is valid.
    let (answers, event) = unsafe { (&mut *user_data.cast::<Answers>(), &*event) };
    assert!(event.struct_size as usize == size_of::<sitter_event>() && event.done <= event.total);
    let answer = answers.answers[answers.calls % 4];
    answers.calls += 1;
    match answer {
        0..=220 => SITTER_CONTINUE,
        221..=230 => {
            // Starting work in here is refused.
            let mut out = null_mut();
            // SAFETY: right arguments.
            let status = unsafe {
                let path = c"fake:".as_ptr();
                sitter_model_open(std::ptr::null(), path, std::ptr::null(), null_mut(), &mut out, null_mut())
            };
            assert_eq!(status, SITTER_E_REENTRANT);
            SITTER_CONTINUE
        }
        other => i32::from(other),
    }
}

pub fn sequence(data: &[u8]) {
    let mut input = Input(data);
    let mut pool = Pool::default();
    let mut answers: Vec<Box<Answers>> = Vec::new();
    // Whether a model that panics was opened.
    let mut may_panic = false;
    for _ in 0..MAX_CALLS {
        if input.0.is_empty() {
            break;
        }
        // SAFETY: handles are living ones or NULL, of any kind; arrays have the length that is told; every other argument
        // is within what the header allows, right or wrong.
        unsafe { call(&mut input, &mut pool, &mut answers, &mut may_panic) };
    }
    for (at, free) in pool.0 {
        // SAFETY: living handles of this kind.
        unsafe { free(at) };
    }
}

// The library holds the address of each box.
#[allow(clippy::vec_box)]
unsafe fn call(input: &mut Input, pool: &mut Pool, answers: &mut Vec<Box<Answers>>, may_panic: &mut bool) {
    let mut err: *mut sitter_error = null_mut();
    let err_at: *mut *mut sitter_error = if input.byte() < 200 { &mut err } else { null_mut() };
    macro_rules! make {
        ($freer:ident, |$out:ident| $call:expr) => {{
            let mut made = null_mut();
            let $out = &mut made;
            let status = $call;
            assert_eq!(status == SITTER_OK, !made.is_null());
            pool.keep(made, $freer);
            status
        }};
    }
    let full = pool.0.len() >= MAX_HANDLES;
    // SAFETY: as promised by the caller.
    let status = unsafe {
        match input.byte() % 32 {
            0 | 1 if !full => {
                let names = [
                    c"fake:",
                    c"fake:steps=2",
                    c"fake:steps=3,open=1",
                    c"fake:fail_at=2",
                    c"fake:panic_at=2,open=1",
                    c"fake:panic_at=1",
                    c"fake:steps=0",
                    c"fake:bad",
                    c"/no/such/model",
                    c"",
                ];
                let name = names[usize::from(input.byte()) % names.len()];
                *may_panic |= name.to_bytes().windows(5).any(|w| w == b"panic");
                let (engine_at, run_at) = (pool.of(input, engine), pool.of(input, run));
                make!(model, |out| sitter_model_open(engine_at, name.as_ptr(), std::ptr::null(), run_at, out, err_at))
            }
            2 if !full => make!(engine_options, |out| sitter_engine_options_new(out, err_at)),
            3 => sitter_engine_options_set_threads(pool.of(input, engine_options), input.number() % 4, err_at),
            4 => sitter_engine_options_set_max_jobs(pool.of(input, engine_options), input.number(), err_at),
            5 if !full => {
                let options = pool.of(input, engine_options);
                make!(engine, |out| sitter_engine_new(options, out, err_at))
            }
            6 | 7 if !full => {
                let status = make!(run, |out| sitter_run_new(out, err_at));
                if let Some(&(at, _)) = pool.0.last().filter(|_| status == SITTER_OK && input.byte().is_multiple_of(2))
                {
                    let mut box_ = Box::new(Answers {
                        answers: [input.byte(), input.byte(), input.byte(), input.byte()],
                        calls: 0,
                    });
                    let data: *mut Answers = &mut *box_;
                    answers.push(box_);
                    assert_eq!(sitter_run_set_callback(at.cast(), Some(on_event), data.cast(), null_mut()), SITTER_OK);
                }
                status
            }
            8 => {
                sitter_run_cancel(pool.of(input, run));
                SITTER_OK
            }
            9 => {
                sitter_run_finish_early(pool.of(input, run));
                SITTER_OK
            }
            10 => {
                let mut bytes = [0u64; 12];
                let size = input.number() as usize % 97;
                sitter_run_snapshot(pool.of(input, run), bytes.as_mut_ptr().cast(), size, err_at)
            }
            11 | 12 if !full => {
                let (width, height) = (input.number(), input.number());
                let stride = if input.byte() < 200 { 0 } else { input.number() as usize };
                let pixels = [input.byte(); 8 * 8 * 3];
                let row = if stride == 0 { 3 * width as usize } else { stride };
                // As many pixels as were promised, or a size that has to be refused.
                let fits = row.checked_mul(height as usize).is_some_and(|n| n <= pixels.len());
                let refused = width == 0
                    || height == 0
                    || row < 3 * width as usize
                    || u64::from(width) * u64::from(height) > 100_000_000;
                match fits || refused {
                    true => {
                        make!(image, |out| sitter_image_from_rgb8(pixels.as_ptr(), width, height, stride, out, err_at))
                    }
                    false => SITTER_OK,
                }
            }
            13 => {
                let mut buffer = [0u8; 256];
                let mut needed = 0;
                sitter_image_copy_rgb8(
                    pool.of(input, image),
                    buffer.as_mut_ptr(),
                    usize::from(input.byte()),
                    &mut needed,
                    err_at,
                )
            }
            14 if !full => {
                let (model_at, image_at, target, run_at) =
                    (pool.of(input, model), pool.of(input, image), input.number(), pool.of(input, run));
                make!(tokens, |out| sitter_tokens_encode(model_at, image_at, target, run_at, out, err_at))
            }
            15 if !full => {
                let codes = vec![u32::from(input.byte()) * 2; 64];
                let (width, height) = (input.number(), input.number());
                let count = u64::from(width) * u64::from(height);
                match count <= 64 || count > 100_000_000 {
                    true => make!(tokens, |out| sitter_tokens_from_array(codes.as_ptr(), width, height, out, err_at)),
                    false => SITTER_OK,
                }
            }
            16 => {
                let mut buffer = [0u32; 64];
                let mut needed = 0;
                sitter_tokens_copy(
                    pool.of(input, tokens),
                    buffer.as_mut_ptr(),
                    usize::from(input.byte()) % 65,
                    &mut needed,
                    err_at,
                )
            }
            17 | 18 if !full => {
                let (model_at, prompt) = (pool.of(input, model), input.text());
                let subjects: Vec<*const sitter_subject> =
                    (0..input.byte() % 3).map(|_| pool.of::<sitter_subject>(input, subject).cast_const()).collect();
                let (options, run_at) = (pool.of(input, sample_options), pool.of(input, run));
                let count = input.number() as usize;
                let mut out: Vec<*mut sitter_tokens> = vec![std::ptr::dangling_mut(); count.min(300)];
                let (list, n) = (subjects.as_ptr(), subjects.len());
                let status = sitter_tokens_sample(
                    model_at,
                    prompt.as_ptr(),
                    list,
                    n,
                    options,
                    run_at,
                    out.as_mut_ptr(),
                    count,
                    err_at,
                );
                match status {
                    SITTER_OK => out.into_iter().for_each(|t| pool.keep(t, tokens)),
                    _ => assert!(!(1..=256).contains(&count) || out.iter().all(|t| t.is_null())),
                }
                status
            }
            19 => {
                let pictures: Vec<*const sitter_tokens> =
                    (0..input.byte() % 4).map(|_| pool.of::<sitter_tokens>(input, tokens).cast_const()).collect();
                let mut scores = [0.0; 4];
                let (model_at, prompt, run_at) = (pool.of(input, model), input.text(), pool.of(input, run));
                let none = std::ptr::null();
                let (all, n) = (pictures.as_ptr(), pictures.len());
                sitter_tokens_score(model_at, prompt.as_ptr(), none, 0, all, n, run_at, scores.as_mut_ptr(), err_at)
            }
            20 if !full => {
                let (model_at, tokens_at, run_at) =
                    (pool.of(input, model), pool.of(input, tokens), pool.of(input, run));
                make!(image, |out| sitter_image_decode(model_at, tokens_at, run_at, out, err_at))
            }
            21 if !full => make!(dataset, |out| sitter_dataset_new(out, err_at)),
            22 => {
                let caption = if input.byte() < 128 { std::ptr::null() } else { input.text().as_ptr() };
                sitter_dataset_add(pool.of(input, dataset), pool.of(input, image), caption, err_at)
            }
            23 if !full => {
                let (model_at, method) = (pool.of(input, model), input.text());
                make!(train_options, |out| sitter_train_options_new(model_at, method.as_ptr(), out, err_at))
            }
            24 => sitter_train_options_set_class_word(pool.of(input, train_options), input.text().as_ptr(), err_at),
            25 => sitter_train_options_set_batch_size(pool.of(input, train_options), input.number(), err_at),
            26 => {
                let list = [input.text().as_ptr(), input.text().as_ptr()];
                sitter_train_options_set_templates(
                    pool.of(input, train_options),
                    list.as_ptr(),
                    usize::from(input.byte()) % 3,
                    err_at,
                )
            }
            27 if !full => {
                let (model_at, dataset_at) = (pool.of(input, model), pool.of(input, dataset));
                let (options, run_at) = (pool.of(input, train_options), pool.of(input, run));
                make!(subject, |out| sitter_subject_train(model_at, dataset_at, options, run_at, out, err_at))
            }
            28 if !full => {
                let model_at = pool.of(input, model);
                make!(sample_options, |out| sitter_sample_options_new(model_at, out, err_at))
            }
            29 => sitter_sample_options_set_guidance(
                pool.of(input, sample_options),
                f64::from(f32::from_bits(input.number())),
                err_at,
            ),
            30 => {
                let mut buffer = [0; 512];
                let mut needed = 0;
                let size = usize::from(input.byte()) * 2;
                sitter_subject_info_json(pool.of(input, subject), buffer.as_mut_ptr(), size, &mut needed, err_at)
            }
            _ if !pool.0.is_empty() => {
                let at = usize::from(input.byte()) % pool.0.len();
                let (handle, free) = pool.0.swap_remove(at);
                free(handle);
                SITTER_OK
            }
            _ => SITTER_OK,
        }
    };
    assert!(status != SITTER_E_PANIC || *may_panic, "a panic");
    // SAFETY: a static text; an error that is ours.
    unsafe {
        assert!(CStr::from_ptr(sitter_status_name(status)).to_bytes().starts_with(b"SITTER_"), "{status}");
        assert!(status != SITTER_OK || err.is_null());
        if !err.is_null() {
            assert_eq!(sitter_error_status(err), status);
            assert!(!CStr::from_ptr(sitter_error_message(err)).is_empty());
            sitter_error_free(err);
        }
    }
}
