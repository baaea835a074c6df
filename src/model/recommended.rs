//! What a model's `sitter.json` recommends, and below it what its family does.
//!
//! The file comes with the model, from whoever made it: it may set numbers and names that only change how good a result is.
//! Which ones these are is said beside the options; nothing else is taken from it, least of all a path.

use super::registry;
use crate::files::Files;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

const FILE: &str = "sitter.json";

/// The parts of the file, each for the options of one verb, or what a family's other files do not say.
const SECTIONS: [&str; 7] = [
    "sample",
    "train",
    "train.two_stage",
    "train.textual_inversion",
    "train.dreambooth",
    "train.lora",
    "train.arbooth",
];

/// The content of `sitter.json`, and the defaults of the model's family.
#[derive(Clone)]
pub struct Recommended {
    file: PathBuf,
    /// By section; empty if there is no such file.
    sections: Map<String, Value>,
    /// The same of the family.
    family: Map<String, Value>,
}

/// Options of which a model may recommend some.
pub trait Recommendable: Serialize + DeserializeOwned {
    /// Those that it may.
    const HARMLESS: &'static [&'static str];
    /// Those that are the user's alone: what they are about, and what would reach beyond the result.
    const USERS: &'static [&'static str];

    /// Errors if a value is out of its range, naming it.
    fn check_ranges(&self) -> Result<()>;
}

impl Recommended {
    pub(super) fn read(files: &Files, family: &Value) -> Result<Self> {
        let (file, family) = (files.path(FILE), family.as_object().cloned().unwrap_or_default());
        if !files.exists(FILE) {
            return Ok(Recommended { file, sections: Map::new(), family });
        }
        let bad = |message: String| Error::bad_format(&file, message);
        let value = serde_json::from_str(&files.text(FILE)?).map_err(|e| bad(format!("not JSON: {e}")))?;
        let Value::Object(sections) = value else {
            return Err(bad(format!("is {}; expected an object with sections such as \"sample\"", kind(&value))));
        };
        // A family may have a section of its own, of its name.
        let known = [SECTIONS.to_vec(), registry::names()].concat();
        if let Some(unknown) = sections.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(bad(format!("has a section {unknown:?}; known are {}", known.join(", "))));
        }
        Ok(Recommended { file, sections, family })
    }

    /// The method of training that the family has by default; which one a model is taught by is not for the model to say.
    pub fn method(&self) -> Option<&str> {
        self.family.get("method")?.as_str()
    }

    /// `defaults` with the values that the family has under `section`, one of the known ones, and over them those that the
    /// model recommends.
    pub fn over<T: Recommendable>(&self, section: &str, defaults: &T) -> Result<T> {
        let of_family = self.given(&self.family, section, defaults)?;
        self.given(&self.sections, section, &of_family)
    }

    fn given<T: Recommendable>(&self, sections: &Map<String, Value>, section: &str, defaults: &T) -> Result<T> {
        let wrong = |message: String| Error::bad_format(&self.file, format!("section {section}: {message}"));
        let mut value = serde_json::to_value(defaults).map_err(|e| wrong(e.to_string()))?;
        match (sections.get(section), value.as_object_mut()) {
            (None, _) => {}
            (Some(Value::Object(given)), Some(all)) => {
                for name in given.keys().map(String::as_str) {
                    if T::HARMLESS.contains(&name) {
                        continue;
                    }
                    return Err(wrong(match T::USERS.contains(&name) {
                        true => {
                            format!("field {name} is for the user to set, not for a model to recommend; take it out")
                        }
                        false => format!("unknown field {name}; a model may recommend {}", T::HARMLESS.join(", ")),
                    }));
                }
                // One by one, so that a value of the wrong kind is blamed on its field.
                for (name, new) in given {
                    all.insert(name.clone(), new.clone());
                    if let Err(e) = serde_json::from_value::<T>(Value::Object(all.clone())) {
                        return Err(wrong(format!("field {name}: {e}")));
                    }
                }
            }
            (Some(other), _) => return Err(wrong(format!("is {}; expected an object", kind(other)))),
        }
        let options: T = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        options.check_ranges().map_err(|e| match e {
            Error::InvalidArgument { field, message } => wrong(format!("field {field}: {message}")),
            other => other,
        })?;
        Ok(options)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Errors unless every option is either harmless or the user's, so that whoever adds one has to decide.
#[cfg(test)]
pub(crate) fn undecided<T: Recommendable>(options: &T) -> Vec<String> {
    let Ok(Value::Object(all)) = serde_json::to_value(options) else { return vec!["no object".into()] };
    let named = |name: &str| T::HARMLESS.iter().chain(T::USERS).filter(|n| **n == name).count();
    let unnamed = all.keys().filter(|name| named(name) != 1).cloned();
    let gone = T::HARMLESS.iter().chain(T::USERS).filter(|n| !all.contains_key(**n)).map(|n| n.to_string());
    unnamed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{personalize, sample};
    use personalize::Method;

    fn read(text: &str) -> Result<Recommended> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        Recommended::read(&Files::Folder(folder.path().to_owned()), &Value::Null)
    }

    #[test]
    fn whether_a_model_may_recommend_it_is_decided_for_every_option() {
        assert_eq!(undecided(&sample::Options::default()), Vec::<String>::new());
        assert_eq!(undecided(&personalize::Options::default()), Vec::<String>::new());
    }

    #[test]
    fn every_method_has_a_section() {
        for method in Method::ALL {
            assert!(SECTIONS.contains(&format!("train.{}", method.name()).as_str()), "{}", method.name());
        }
    }

    #[test]
    fn what_is_the_users_to_set_is_refused_by_file_section_and_field() {
        for field in personalize::Options::USERS {
            for section in ["train", "train.lora"] {
                let text = format!(r#"{{"{section}": {{"layer_steps": 3, "{field}": null}}}}"#);
                let by = read(&text).unwrap();
                let error = personalize::Options::recommended(&by, Method::Lora).unwrap_err();
                assert!(matches!(error, Error::BadFormat { .. }), "{error}");
                let said = error.to_string();
                for word in [FILE, section, field, "user"] {
                    assert!(said.contains(word), "{said}");
                }
            }
        }
        let by = read(r#"{"sample": {"count": 200}}"#).unwrap();
        let said = sample::Options::recommended(&by).unwrap_err().to_string();
        assert!(said.contains("section sample") && said.contains("field count"), "{said}");
    }

    #[test]
    fn no_path_can_be_recommended() {
        let by = read(r#"{"train": {"checkpoint_path": "/anywhere/x", "checkpoint_every": 1}}"#).unwrap();
        let said = personalize::Options::recommended(&by, Method::TwoStage).unwrap_err().to_string();
        assert!(said.contains("checkpoint_"), "{said}");
        assert!(personalize::Options::HARMLESS.iter().all(|name| !name.contains("path")));
    }

    #[test]
    fn recommended_values_have_the_ranges_of_all_others() {
        for (text, section, field) in [
            (r#"{"train": {"layer_learning_rate": -1}}"#, "train", "layer_learning_rate"),
            (r#"{"train": {"batch_size": 4000000000}}"#, "train", "batch_size"),
            (r#"{"train": {"batch_size": -1}}"#, "train", "batch_size"),
            (r#"{"train": {"dropout": "much"}}"#, "train", "dropout"),
            (r#"{"train.two_stage": {"embedding_vectors": 65}}"#, "train.two_stage", "embedding_vectors"),
            (r#"{"train": {"identifier": "two words"}}"#, "train", "identifier"),
        ] {
            let said =
                personalize::Options::recommended(&read(text).unwrap(), Method::TwoStage).unwrap_err().to_string();
            assert!(
                said.contains(&format!("section {section}: ")) && said.contains(&format!("field {field}")),
                "{said}"
            );
        }
        for (field, value) in [("guidance", "1e30"), ("temperature", "0"), ("window", "1"), ("width", "-8")] {
            let by = read(&format!(r#"{{"sample": {{"{field}": {value}}}}}"#)).unwrap();
            let said = sample::Options::recommended(&by).unwrap_err().to_string();
            assert!(said.contains(&format!("section sample: field {field}")), "{said}");
        }
    }

    #[test]
    fn what_a_family_has_stands_below_what_its_model_recommends() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::Folder(folder.path().to_owned());
        let family = serde_json::json!({"sample": {"guidance": 5, "width": 384}, "train": {"clip_norm": 1}});
        let alone = Recommended::read(&files, &family).unwrap();
        let sample = sample::Options::recommended(&alone).unwrap();
        assert_eq!((sample.guidance, sample.width, sample.height), (5.0, 384, 768));
        for method in Method::ALL {
            let train = personalize::Options::recommended(&alone, method).unwrap();
            assert_eq!(train, personalize::Options { clip_norm: 1.0, ..personalize::Options::new(method) });
        }
        std::fs::write(folder.path().join(FILE), r#"{"sample": {"guidance": 2}}"#).unwrap();
        let both = sample::Options::recommended(&Recommended::read(&files, &family).unwrap()).unwrap();
        assert_eq!((both.guidance, both.width), (2.0, 384));
    }

    #[test]
    fn a_file_that_is_no_object_of_sections_is_refused() {
        for (text, word) in [
            ("[1]", "a list"),
            ("null", "null"),
            ("7", "a number"),
            (r#"{"trian": {}}"#, "trian"),
            ("{", "not JSON"),
            ("", "empty"),
        ] {
            let error = read(text).err().unwrap();
            let said = error.to_string();
            assert!(matches!(error, Error::BadFormat { .. }) && said.contains(FILE) && said.contains(word), "{said}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the name is a C string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let files = Files::Folder(folder.path().to_owned());
        let said = Recommended::read(&files, &Value::Null).err().unwrap().to_string();
        assert!(said.contains(FILE) && said.contains("pipe"), "{said}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Recommended::read(&files, &Value::Null).err().unwrap().to_string().contains("a folder"));
    }
}
