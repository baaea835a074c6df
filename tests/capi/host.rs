//! A small host: safe to use, and as strict as the header about what a call may leave behind.

use sitter::capi::dataset::*;
use sitter::capi::engine::*;
use sitter::capi::error::*;
use sitter::capi::evaluation::*;
use sitter::capi::evaluator::*;
use sitter::capi::image::*;
use sitter::capi::model::*;
use sitter::capi::nouns::{
    sitter_dataset, sitter_evaluation, sitter_evaluator, sitter_image, sitter_model, sitter_sample_options,
    sitter_subject, sitter_tokens, sitter_train_options,
};
use sitter::capi::options::*;
use sitter::capi::run::*;
use sitter::capi::scores::*;
use sitter::capi::setters::*;
use sitter::capi::status::*;
use sitter::capi::subject::*;
use sitter::capi::tokens::*;
use std::ffi::{c_char, c_void, CStr, CString};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub type Result<T> = std::result::Result<T, Failed>;

/// A failed call.
#[derive(Debug)]
pub struct Failed {
    pub status: sitter_status,
    pub message: String,
    /// Seen where a test prints the whole.
    #[allow(dead_code)]
    pub detail: String,
}

/// Makes a call that can fail.
pub fn check(call: impl FnOnce(*mut *mut sitter_error) -> sitter_status) -> Result<()> {
    let mut error: *mut sitter_error = null_mut();
    let status = call(&mut error);
    if status == SITTER_OK {
        assert!(error.is_null(), "a call that succeeded left an error");
        return Ok(());
    }
    // SAFETY: the error is ours, and its texts live as long as it does.
    unsafe {
        let text = |t: *const c_char| CStr::from_ptr(t).to_str().expect("texts are UTF-8").to_owned();
        let failed =
            Failed { status, message: text(sitter_error_message(error)), detail: text(sitter_error_detail(error)) };
        assert_eq!(sitter_error_status(error), status);
        assert!(!failed.message.is_empty() && !failed.message.contains('\n'), "{failed:?}");
        sitter_error_free(error);
        Err(failed)
    }
}

/// The status of a call; SITTER_OK if it succeeded.
pub fn status<T>(result: &Result<T>) -> sitter_status {
    result.as_ref().err().map_or(SITTER_OK, |f| f.status)
}

/// Fails unless the call failed with this status; gives the message.
#[track_caller]
pub fn fails<T>(result: Result<T>, expected: sitter_status) -> String {
    match result {
        Ok(_) => panic!("succeeded; expected status {expected}"),
        Err(f) => {
            assert_eq!(f.status, expected, "{f:?}");
            f.message
        }
    }
}

/// A handle that frees itself.
pub struct Handle<T> {
    pub at: *mut T,
    free: unsafe extern "C" fn(*mut T),
}

// SAFETY: the header lets every handle be freed from any thread; what else a test does with it, it answers for.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        // SAFETY: made by the library, freed once.
        unsafe { (self.free)(self.at) }
    }
}

impl<T> Handle<T> {
    /// Gives the handle up without freeing it.
    pub fn leak(self) -> *mut T {
        let at = self.at;
        std::mem::forget(self);
        at
    }
}

/// Makes a call that gives a handle: NULL on failure, whatever was there before.
pub fn made<T>(
    free: unsafe extern "C" fn(*mut T),
    call: impl FnOnce(*mut *mut T, *mut *mut sitter_error) -> sitter_status,
) -> Result<Handle<T>> {
    let mut out: *mut T = std::ptr::dangling_mut();
    match check(|err| call(&mut out, err)) {
        Ok(()) => {
            assert!(!out.is_null(), "success without a handle");
            Ok(Handle { at: out, free })
        }
        Err(failed) => {
            assert!(out.is_null(), "a failure left a handle: {failed:?}");
            Err(failed)
        }
    }
}

pub fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

// SAFETY, for all that follow: pointers come from living handles, strings and vectors of the right length.

pub fn engine(threads: u32, max_jobs: u32) -> Handle<sitter_engine> {
    unsafe {
        let options = made(sitter_engine_options_free, |out, err| sitter_engine_options_new(out, err)).unwrap();
        check(|err| sitter_engine_options_set_threads(options.at, threads, err)).unwrap();
        check(|err| sitter_engine_options_set_max_jobs(options.at, max_jobs, err)).unwrap();
        made(sitter_engine_free, |out, err| sitter_engine_new(options.at, out, err)).unwrap()
    }
}

pub fn open_on(engine: *const sitter_engine, path: &str, run: *mut sitter_run) -> Result<Handle<sitter_model>> {
    let path = c(path);
    made(sitter_model_free, |out, err| unsafe { sitter_model_open(engine, path.as_ptr(), null(), run, out, err) })
}

pub fn open(path: &str) -> Result<Handle<sitter_model>> {
    open_on(null(), path, null_mut())
}

/// An evaluator with this DINO alone.
pub fn evaluator(engine: *const sitter_engine, dino: &str) -> Result<Handle<sitter_evaluator>> {
    let dino = c(dino);
    unsafe {
        let options = made(sitter_evaluator_options_free, |out, err| sitter_evaluator_options_new(out, err)).unwrap();
        check(|err| sitter_evaluator_options_set_dino(options.at, dino.as_ptr(), err)).unwrap();
        made(sitter_evaluator_free, |out, err| sitter_evaluator_open(engine, options.at, null_mut(), out, err))
    }
}

pub fn scores(
    evaluator: &Handle<sitter_evaluator>,
    evaluation: &Handle<sitter_evaluation>,
    run: *mut sitter_run,
) -> Result<serde_json::Value> {
    let (evaluator, evaluation) = (evaluator.at, evaluation.at);
    let scores =
        made(sitter_scores_free, |out, err| unsafe { sitter_evaluator_score(evaluator, evaluation, run, out, err) })?;
    Ok(json(|buffer, capacity, needed, err| unsafe { sitter_scores_json(scores.at, buffer, capacity, needed, err) }))
}

pub fn image(rgb: &[u8], width: u32, height: u32) -> Result<Handle<sitter_image>> {
    assert!(rgb.len() as u64 >= u64::from(width) * u64::from(height) * 3);
    made(sitter_image_free, |out, err| unsafe { sitter_image_from_rgb8(rgb.as_ptr(), width, height, 0, out, err) })
}

/// A picture of this size with something in it.
pub fn pattern(width: u32, height: u32) -> Handle<sitter_image> {
    let rgb: Vec<u8> = (0..width as usize * height as usize * 3).map(|i| (i / 7 * 37 % 251) as u8).collect();
    image(&rgb, width, height).unwrap()
}

pub fn tokens(codes: &[u32], width: u32, height: u32) -> Result<Handle<sitter_tokens>> {
    assert!(codes.len() as u64 >= u64::from(width) * u64::from(height));
    made(sitter_tokens_free, |out, err| unsafe { sitter_tokens_from_array(codes.as_ptr(), width, height, out, err) })
}

pub fn codes(tokens: &Handle<sitter_tokens>) -> Vec<u32> {
    two_calls(|buffer, capacity, needed, err| unsafe { sitter_tokens_copy(tokens.at, buffer, capacity, needed, err) })
}

pub fn rgb(image: &Handle<sitter_image>) -> Vec<u8> {
    two_calls(|buffer, capacity, needed, err| unsafe {
        sitter_image_copy_rgb8(image.at, buffer, capacity, needed, err)
    })
}

/// Asks for a size, then for the values.
pub fn two_calls<T: Default + Clone>(
    copy: impl Fn(*mut T, usize, *mut usize, *mut *mut sitter_error) -> sitter_status,
) -> Vec<T> {
    let mut needed = usize::MAX;
    check(|err| copy(null_mut(), 0, &mut needed, err)).unwrap();
    let mut values = vec![T::default(); needed];
    check(|err| copy(values.as_mut_ptr(), values.len(), &mut needed, err)).unwrap();
    assert_eq!(needed, values.len());
    values
}

/// A JSON object from a function in the two-call form.
pub fn json(
    copy: impl Fn(*mut c_char, usize, *mut usize, *mut *mut sitter_error) -> sitter_status,
) -> serde_json::Value {
    let bytes: Vec<u8> = two_calls::<c_char>(copy).into_iter().map(|c| c as u8).collect();
    assert_eq!(bytes.last(), Some(&0), "the size counts the NUL");
    serde_json::from_slice(&bytes[..bytes.len() - 1]).unwrap()
}

pub fn model_info(model: &Handle<sitter_model>) -> serde_json::Value {
    json(|buffer, capacity, needed, err| unsafe { sitter_model_info_json(model.at, buffer, capacity, needed, err) })
}

pub fn subject_info(subject: &Handle<sitter_subject>) -> serde_json::Value {
    json(|buffer, capacity, needed, err| unsafe { sitter_subject_info_json(subject.at, buffer, capacity, needed, err) })
}

type OnEvent<'a> = Box<dyn FnMut(&sitter_event) -> i32 + 'a>;

/// A run and the closure that gets its events.
pub struct Run<'a> {
    pub handle: Handle<sitter_run>,
    // Boxed twice: C gets a thin pointer that does not move with this struct.
    _on_event: Option<Box<OnEvent<'a>>>,
}

// SAFETY: all that other threads can reach is the handle; the closure is called by the thread that makes the call.
unsafe impl Sync for Run<'_> {}

unsafe extern "C" fn trampoline(user_data: *mut c_void, event: *const sitter_event) -> i32 {
    // SAFETY: the run's owner keeps the closure through the call; the event is valid during the callback.
    unsafe { (*user_data.cast::<OnEvent>())(&*event) }
}

impl<'a> Run<'a> {
    pub fn silent() -> Self {
        let handle = made(sitter_run_free, |out, err| unsafe { sitter_run_new(out, err) }).unwrap();
        Run { handle, _on_event: None }
    }

    pub fn new(on_event: impl FnMut(&sitter_event) -> i32 + 'a) -> Self {
        let run = Run::silent();
        let mut on_event: Box<OnEvent<'a>> = Box::new(Box::new(on_event));
        let user_data: *mut OnEvent = &mut *on_event;
        check(|err| unsafe { sitter_run_set_callback(run.handle.at, Some(trampoline), user_data.cast(), err) })
            .unwrap();
        Run { _on_event: Some(on_event), ..run }
    }

    pub fn at(&self) -> *mut sitter_run {
        self.handle.at
    }

    pub fn cancel(&self) {
        unsafe { sitter_run_cancel(self.at()) }
    }

    pub fn finish_early(&self) {
        unsafe { sitter_run_finish_early(self.at()) }
    }

    pub fn snapshot(&self) -> sitter_event {
        let mut event = std::mem::MaybeUninit::<sitter_event>::uninit();
        check(|err| unsafe { sitter_run_snapshot(self.at(), event.as_mut_ptr(), size_of::<sitter_event>(), err) })
            .unwrap();
        // SAFETY: the whole struct was written.
        unsafe { event.assume_init() }
    }
}

/// A long call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verb {
    Open,
    Encode,
    Train,
    Sample,
    Score,
    Decode,
    /// Making vectors of pictures.
    Look,
    /// Scoring pictures against references.
    Measure,
}

impl Verb {
    pub const ALL: [Verb; 8] =
        [Verb::Open, Verb::Encode, Verb::Train, Verb::Sample, Verb::Score, Verb::Decode, Verb::Look, Verb::Measure];
}

/// An opened model and everything that its verbs take.
pub struct Studio {
    name: String,
    pub model: Handle<sitter_model>,
    pub image: Handle<sitter_image>,
    pub tokens: Handle<sitter_tokens>,
    pub dataset: Handle<sitter_dataset>,
    pub train: Handle<sitter_train_options>,
    pub sample: Handle<sitter_sample_options>,
    pub evaluator: Handle<sitter_evaluator>,
    pub evaluation: Handle<sitter_evaluation>,
    /// Pictures that `Verb::Sample` draws.
    pub count: usize,
}

impl Studio {
    /// `name` is opened again, on the same engine, by `Verb::Open`.
    pub fn on(engine: *const sitter_engine, name: &str, side: u32, grid: u32) -> Studio {
        let plain = name.replace("open=1", "open=0");
        let model = open_on(engine, &plain, null_mut()).unwrap();
        unsafe {
            let train = train_options(&model, None);
            let sample = made(sitter_sample_options_free, |out, err| sitter_sample_options_new(model.at, out, err));
            let studio = Studio {
                name: name.to_owned(),
                image: pattern(side, side),
                tokens: tokens(&vec![7; (grid * grid) as usize], grid, grid).unwrap(),
                dataset: made(sitter_dataset_free, |out, err| sitter_dataset_new(out, err)).unwrap(),
                train,
                sample: sample.unwrap(),
                // A fake model measures, too; others leave it to a small DINO.
                evaluator: match plain.strip_prefix("fake:") {
                    Some(_) => evaluator(engine, &plain).unwrap(),
                    None => evaluator(engine, golden("evaluate/dino").to_str().unwrap()).unwrap(),
                },
                evaluation: made(sitter_evaluation_free, |out, err| sitter_evaluation_new(out, err)).unwrap(),
                model,
                count: 1,
            };
            for role in [SITTER_ROLE_PICTURE, SITTER_ROLE_REFERENCE] {
                let add = |err| sitter_evaluation_add_image(studio.evaluation.at, role, studio.image.at, null(), err);
                check(add).unwrap();
            }
            for image in [&studio.image, &pattern(side * 2, side)] {
                check(|err| sitter_dataset_add(studio.dataset.at, image.at, null(), err)).unwrap();
            }
            studio
        }
    }

    /// A fake model; see `src/capi/fake.rs` for what the settings mean.
    pub fn fake(settings: &str) -> Studio {
        Studio::on(null(), &format!("fake:open=1,{settings}"), 16, 2)
    }

    pub fn embedded() -> Studio {
        Studio::on(null(), "embedded:", 128, 16)
    }

    pub fn encode(&self, run: *mut sitter_run) -> Result<Handle<sitter_tokens>> {
        made(sitter_tokens_free, |out, err| unsafe {
            sitter_tokens_encode(self.model.at, self.image.at, 0, run, out, err)
        })
    }

    pub fn train(&self, run: *mut sitter_run) -> Result<Handle<sitter_subject>> {
        made(sitter_subject_free, |out, err| unsafe {
            sitter_subject_train(self.model.at, self.dataset.at, self.train.at, run, out, err)
        })
    }

    pub fn sample(&self, run: *mut sitter_run) -> Result<Vec<Handle<sitter_tokens>>> {
        self.sample_with("a photo of a fox", &[], run)
    }

    pub fn sample_with(
        &self,
        prompt: &str,
        subjects: &[&Handle<sitter_subject>],
        run: *mut sitter_run,
    ) -> Result<Vec<Handle<sitter_tokens>>> {
        let prompt = c(prompt);
        let subjects: Vec<*const sitter_subject> = subjects.iter().map(|s| s.at.cast_const()).collect();
        let mut out = vec![std::ptr::dangling_mut::<sitter_tokens>(); self.count];
        let result = check(|err| unsafe {
            let (model, options) = (self.model.at, self.sample.at);
            let (list, n) = (subjects.as_ptr(), subjects.len());
            sitter_tokens_sample(model, prompt.as_ptr(), list, n, options, run, out.as_mut_ptr(), out.len(), err)
        });
        match result {
            Ok(()) => Ok(out.into_iter().map(|at| Handle { at, free: sitter_tokens_free }).collect()),
            Err(failed) => {
                assert!(out.iter().all(|t| t.is_null()), "a failure left tokens: {failed:?}");
                Err(failed)
            }
        }
    }

    pub fn score(&self, run: *mut sitter_run) -> Result<Vec<f64>> {
        self.score_all("a photo of a fox", &[], &[&self.tokens], run)
    }

    pub fn score_all(
        &self,
        prompt: &str,
        subjects: &[&Handle<sitter_subject>],
        pictures: &[&Handle<sitter_tokens>],
        run: *mut sitter_run,
    ) -> Result<Vec<f64>> {
        let prompt = c(prompt);
        let subjects: Vec<*const sitter_subject> = subjects.iter().map(|s| s.at.cast_const()).collect();
        let pictures: Vec<*const sitter_tokens> = pictures.iter().map(|t| t.at.cast_const()).collect();
        let mut scores = vec![-7.0; pictures.len()];
        let result = check(|err| unsafe {
            let (list, n) = (subjects.as_ptr(), subjects.len());
            let (all, count) = (pictures.as_ptr(), pictures.len());
            sitter_tokens_score(self.model.at, prompt.as_ptr(), list, n, all, count, run, scores.as_mut_ptr(), err)
        });
        match result {
            Ok(()) => Ok(scores),
            Err(failed) => {
                assert!(scores.iter().all(|&s| s == -7.0), "a failure wrote scores: {failed:?}");
                Err(failed)
            }
        }
    }

    /// DINO's vectors of the image, twice.
    pub fn look(&self, run: *mut sitter_run) -> Result<Vec<f32>> {
        let images = [self.image.at.cast_const(); 2];
        let of = |run, buffer, capacity, needed, err| unsafe {
            sitter_evaluator_dino(self.evaluator.at, images.as_ptr(), 2, run, buffer, capacity, needed, err)
        };
        let mut needed = 0;
        check(|err| of(null_mut(), null_mut(), 0, &mut needed, err))?;
        let mut vectors = vec![-7.0; needed];
        match check(|err| of(run, vectors.as_mut_ptr(), needed, null_mut(), err)) {
            Ok(()) => Ok(vectors),
            Err(failed) => {
                assert!(vectors.iter().all(|&v| v == -7.0), "a failure wrote vectors: {failed:?}");
                Err(failed)
            }
        }
    }

    pub fn measure(&self, run: *mut sitter_run) -> Result<serde_json::Value> {
        scores(&self.evaluator, &self.evaluation, run)
    }

    pub fn decode(&self, run: *mut sitter_run) -> Result<Handle<sitter_image>> {
        self.decode_tokens(&self.tokens, run)
    }

    pub fn decode_tokens(&self, tokens: &Handle<sitter_tokens>, run: *mut sitter_run) -> Result<Handle<sitter_image>> {
        made(sitter_image_free, |out, err| unsafe { sitter_image_decode(self.model.at, tokens.at, run, out, err) })
    }

    /// Does a verb and throws its result away.
    pub fn perform(&self, verb: Verb, run: *mut sitter_run) -> Result<()> {
        match verb {
            // The same engine as the model's is not to be had from C; a new one each time tests more.
            Verb::Open => open_on(null(), &self.name, run).map(drop),
            Verb::Encode => self.encode(run).map(drop),
            Verb::Train => self.train(run).map(drop),
            Verb::Sample => self.sample(run).map(drop),
            Verb::Score => self.score(run).map(drop),
            Verb::Decode => self.decode(run).map(drop),
            Verb::Look => self.look(run).map(drop),
            Verb::Measure => self.measure(run).map(drop),
        }
    }

    /// Fails unless every verb still does its work.
    #[track_caller]
    pub fn still_works(&self) {
        for verb in Verb::ALL {
            if let Err(failed) = self.perform(verb, null_mut()) {
                panic!("{verb:?} does not work any more: {failed:?}");
            }
        }
    }
}

/// Options for a training of the model, with a class word.
pub fn train_options(model: &Handle<sitter_model>, method: Option<&str>) -> Handle<sitter_train_options> {
    let method = method.map(c);
    let method = method.as_ref().map_or(null(), |m| m.as_ptr());
    unsafe {
        let options = made(sitter_train_options_free, |out, err| sitter_train_options_new(model.at, method, out, err));
        let options = options.unwrap();
        let fox = c("fox");
        check(|err| sitter_train_options_set_class_word(options.at, fox.as_ptr(), err)).unwrap();
        options
    }
}

/// The small model of `tests/golden`, with pictures of 8x8 pixels.
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test that measures time: nothing else of weight runs meanwhile.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(|e| e.into_inner())
}

/// Held by a test that computes for long.
pub fn busy() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(|e| e.into_inner())
}

/// Runs the ignored test `name` of this program in a process of its own; gives what it printed, on stdout and stderr.
pub fn in_own_process(name: &str) -> (String, String) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{name}: {}\n{stdout}\n{stderr}", output.status);
    assert!(stdout.contains("1 passed"), "{name} did not run: {stdout}");
    (stdout, stderr)
}
