//! The text encoder in use: read when it is needed, and texts that it has read are remembered.

use super::files::TextFiles;
use super::t5::T5;
use crate::weight::Format;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Texts whose features are remembered; those of a training are encoded once.
const REMEMBERED: usize = 512;

/// The text encoder of a model.
pub struct Encoder {
    files: TextFiles,
    format: Format,
    device: Device,
    /// Whether it stays in memory.
    keep: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    t5: Option<Arc<T5>>,
    /// Token ids and features, the oldest first.
    read: VecDeque<(Vec<u32>, Tensor)>,
}

impl Encoder {
    /// Reads and checks the weights, whether or not they stay.
    pub fn open(
        files: TextFiles,
        format: Format,
        device: &Device,
        keep: bool,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Encoder> {
        let encoder = Encoder { files, format, device: device.clone(), keep, state: Mutex::default() };
        let t5 = encoder.load(progress)?;
        if keep {
            encoder.lock().t5 = Some(t5);
        }
        Ok(encoder)
    }

    fn load(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<Arc<T5>> {
        let checkpoint = self.files.checkpoint()?;
        Ok(Arc::new(T5::load(&checkpoint, self.files.config()?, self.format, &self.device, progress)?))
    }

    /// A panic cannot leave the state half changed in a way that matters.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The features of each of some texts, [tokens, width].
    pub fn features(&self, texts: &[&[u32]]) -> Result<Vec<Tensor>> {
        let mut state = self.lock();
        let mut loaded = state.t5.clone();
        let mut features = Vec::new();
        for &ids in texts {
            let known = state.read.iter().find(|(known, _)| known == ids).map(|(_, features)| features.clone());
            features.push(match known {
                Some(known) => known,
                None => {
                    let t5 = match loaded.take() {
                        Some(t5) => t5,
                        None => self.load(&mut |_| Ok(()))?,
                    };
                    let read = t5.forward(ids)?;
                    loaded = Some(t5);
                    if state.read.len() == REMEMBERED {
                        state.read.pop_front();
                    }
                    state.read.push_back((ids.to_vec(), read.clone()));
                    read
                }
            });
        }
        if self.keep {
            state.t5 = loaded;
        }
        match features.iter().zip(texts).find(|(f, ids)| f.dims()[0] != ids.len()) {
            None => Ok(features),
            Some(_) => Err(Error::internal("a text has other features than tokens")),
        }
    }
}
