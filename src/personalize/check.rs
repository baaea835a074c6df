//! What options may be: by themselves, together, and for a model.

use super::options::Options;
use super::templates::{PLACE, TEMPLATES};
use crate::model::family::{Prediction, Teacher};
use crate::model::subject::check_identifier;
use crate::model::words::has_word;
use crate::model::Model;
use crate::{Error, Result};

impl Options {
    /// Errors if a value is out of the range that it has whatever the others are, naming it.
    pub fn check_ranges(&self) -> Result<()> {
        let real = |field: &str, value: f64, low: f64, high: f64| match value >= low && value <= high {
            true => Ok(()),
            false => Err(Error::invalid(field, format!("is {value}; allowed are {low} to {high}"))),
        };
        let fraction = |field: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::invalid(field, format!("is {value}; allowed is 0 to below 1"))),
        };
        let whole = |field: &str, value: u32, low: u32, high: u32| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(Error::invalid(field, format!("is {value}; allowed are {low} to {high}"))),
        };
        whole("embedding_steps", self.embedding_steps, 0, 1_000_000)?;
        real("embedding_learning_rate", self.embedding_learning_rate, 0.0, 10.0)?;
        whole("embedding_vectors", self.embedding_vectors, 1, 64)?;
        whole("layer_steps", self.layer_steps, 0, 1_000_000)?;
        real("layer_learning_rate", self.layer_learning_rate, 0.0, 10.0)?;
        whole("lora_rank", self.lora_rank, 1, 1024)?;
        real("lora_alpha", self.lora_alpha, 0.0, 10_000.0)?;
        whole("layer_stride", self.layer_stride, 1, 1000)?;
        whole("batch_size", self.batch_size, 1, 256)?;
        whole("accumulation", self.accumulation, 1, 256)?;
        real("weight_decay", self.weight_decay, 0.0, 10.0)?;
        fraction("beta1", self.beta1)?;
        fraction("beta2", self.beta2)?;
        real("clip_norm", self.clip_norm, 0.0, 1e9)?;
        real("z_loss", self.z_loss, 0.0, 1.0)?;
        fraction("dropout", self.dropout.into())?;
        real("guidance_dropout", self.guidance_dropout.into(), 0.0, 1.0)?;
        whole("augment", self.augment, 0, 1000)?;
        real("prior_weight", self.prior_weight, 0.0, 100.0)?;
        whole("prior_count", self.prior_count, 1, 10_000)?;
        real("initial_noise", self.initial_noise, 0.0, 10.0)?;
        self.scale_weights.iter().try_for_each(|&w| real("scale_weights", w.into(), 0.0, 1000.0))?;
        real("self_correction", self.self_correction.into(), 0.0, 1.0)?;
        whole("sample_every", self.sample_every, 0, 1_000_000)?;
        check_identifier(&self.identifier).map_err(|what| Error::invalid("identifier", what))?;
        if let Some(bad) = self.templates.iter().find(|t| t.matches(PLACE).count() != 1) {
            return Err(Error::invalid("templates", format!("{bad:?} does not have exactly one {{}} for the subject")));
        }
        if self.initial_embedding.iter().flatten().any(|v| !v.is_finite()) {
            return Err(Error::invalid("initial_embedding", "contains numbers that are not finite"));
        }
        if self.sample_prompt.as_ref().is_some_and(|prompt| prompt.trim().is_empty()) {
            return Err(Error::invalid("sample_prompt", "is empty"));
        }
        if self.initial_word.as_ref().is_some_and(|word| word.trim().is_empty()) {
            return Err(Error::invalid("initial_word", "is empty"));
        }
        Ok(())
    }

    /// Errors if a value is out of its range, naming it, or if values contradict each other or the model.
    pub fn check(&self, model: &Model) -> Result<()> {
        self.check_ranges()?;
        if self.accumulation > self.batch_size {
            let message = format!("is {}; allowed are 1 to batch_size, {}", self.accumulation, self.batch_size);
            return Err(Error::invalid("accumulation", message));
        }
        if self.embedding_steps == 0 && self.layer_steps == 0 {
            return Err(Error::invalid("embedding_steps", "is 0, and so is layer_steps; nothing would be learned"));
        }
        let (id, class) = (self.identifier.as_str(), self.class_word.trim());
        if self.use_class_word && class.is_empty() {
            return Err(Error::invalid(
                "class_word",
                "is empty; say what the subject is (\"dog\"), or set use_class_word to false",
            ));
        }
        if self.prior_weight > 0.0 && class.is_empty() {
            return Err(Error::invalid(
                "class_word",
                "is empty, but prior_weight asks for pictures of the plain class",
            ));
        }
        if class.split_whitespace().any(|word| word == id) {
            return Err(Error::invalid("identifier", format!("{id} is part of the class word \"{class}\"")));
        }
        // Those that the user gives are looked at below.
        let templates = if self.templates.is_empty() { &TEMPLATES[..] } else { &[] };
        if let Some(text) = templates.iter().chain(model.family().frame()).find(|text| has_word(text, id)) {
            return Err(Error::invalid(
                "identifier",
                format!(
                    "{id} is an ordinary word, which stands in what the model reads, as in {text:?}; choose one that means \
                     nothing, such as [V]",
                    text = text.trim()
                ),
            ));
        }
        if let Some(bad) = self.templates.iter().find(|t| t.contains(id)) {
            return Err(Error::invalid(
                "templates",
                format!("{bad:?} already contains the identifier {id}; write {{}} there"),
            ));
        }
        if self.on_device() && !self.fits_device() {
            let message =
                "is device, which needs optimizer_state f32 and master_weights; lean states are made on the host";
            return Err(Error::invalid("optimizer_device", message));
        }
        let hidden = model.facts().width;
        match (&self.initial_embedding, &self.initial_word) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid("initial_word", "and initial_embedding cannot both be given"));
            }
            (Some(values), None) => {
                let all = hidden * self.embedding_vectors as usize;
                if values.len() != hidden && values.len() != all {
                    let message = format!("has {} numbers; expected {hidden} or {all}", values.len());
                    return Err(Error::invalid("initial_embedding", message));
                }
            }
            _ => {}
        }
        let count = model.facts().layers;
        if self.trained_layers(count).is_empty() || self.layers.iter().any(|&l| l as usize >= count) {
            return Err(Error::invalid(
                "layers",
                format!("is {:?}; the model has layers 0 to {}", self.layers, count - 1),
            ));
        }
        self.check_scales(model)?;
        self.check_trainable(model)?;
        model.family().check_target(self.image_size)?;
        if self.checkpoint_every > 0 && self.checkpoint_path.is_none() {
            return Err(Error::invalid("checkpoint_path", "is needed if checkpoint_every is not 0"));
        }
        Ok(())
    }

    /// Errors if an option is set that means nothing to a model which draws as this one does.
    fn check_scales(&self, model: &Model) -> Result<()> {
        let by_scale = matches!(model.family().prediction(), Prediction::NextScale(_));
        // Which is set, and whether it is for models that draw scale after scale.
        let options = [
            ("prior_distillation", self.prior_distillation, true),
            ("teacher", self.teacher != Teacher::Correct, true),
            ("scale_weights", !self.scale_weights.is_empty(), true),
            ("self_correction", self.self_correction > 0.0, true),
            ("z_loss", self.z_loss > 0.0, false),
        ];
        let (known, others): (Vec<_>, Vec<_>) = options.iter().partition(|(_, _, scales)| *scales == by_scale);
        let Some((field, _, _)) = others.into_iter().find(|(_, set, _)| *set) else { return Ok(()) };
        let how = |scales: bool| if scales { "scale after scale" } else { "code after code" };
        let message = format!(
            "is for models that draw {}; {} draws {} and knows {}",
            how(!by_scale),
            model.info().family,
            how(by_scale),
            known.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ")
        );
        Err(Error::invalid(field, message))
    }

    /// Errors if the model has no weights that `trainable` names.
    fn check_trainable(&self, model: &Model) -> Result<()> {
        let weights = model.family().weights();
        let mut chosen = weights.iter().filter(|entry| self.learns(&entry.spec)).peekable();
        if chosen.peek().is_some() {
            let layers = self.trained_layers(model.facts().layers);
            if chosen.any(|entry| entry.spec.layer.is_some_and(|layer| layers.contains(&layer))) {
                return Ok(());
            }
            let message = format!(
                "is {:?} with a layer_stride of {}, and none of what \"{}\" chooses learns with one of these layers",
                self.layers,
                self.layer_stride,
                self.trainable.name()
            );
            return Err(Error::invalid("layers", message));
        }
        let mut roles: Vec<&str> = weights.iter().flat_map(|entry| entry.spec.roles).copied().collect();
        roles.sort_unstable();
        roles.dedup();
        let example = weights.iter().find(|entry| entry.spec.linear && entry.spec.layer.is_some());
        let message = format!(
            "\"{}\" chooses none of the model's weights; its roles are {}, all, and a name is {}",
            self.trainable.name(),
            roles.join(", "),
            example.map_or("", |entry| &entry.spec.name)
        );
        Err(Error::invalid("trainable", message))
    }
}
