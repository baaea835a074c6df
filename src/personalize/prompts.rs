//! The prompts that a subject is taught with.

use super::options::Options;
use super::templates::{PLACE, TEMPLATES};
use crate::random::Stream;

fn template(options: &Options, index: usize) -> &str {
    match options.templates.is_empty() {
        true => TEMPLATES[index % TEMPLATES.len()],
        false => &options.templates[index % options.templates.len()],
    }
}

/// How many there are.
pub(super) fn templates(options: &Options) -> usize {
    match options.templates.len() {
        0 => TEMPLATES.len(),
        n => n,
    }
}

/// The prompt of the pictures that show how far the subject is.
pub(super) fn sample(options: &Options) -> String {
    let first = || template(options, 0).replace(PLACE, &subject(options));
    options.sample_prompt.clone().unwrap_or_else(first)
}

/// What stands for the subject in a prompt: identifier and class word.
fn subject(options: &Options) -> String {
    match options.use_class_word {
        true => format!("{} {}", options.identifier, options.class_word.trim()),
        false => options.identifier.clone(),
    }
}

/// The word for the vector of reference picture `index`; not one that anybody would choose as an identifier.
pub(super) fn picture_word(index: usize) -> String {
    format!("[*{index}*]")
}

/// A prompt for reference picture `picture`: its caption if it has one, else a random template; in half of them followed
/// by the picture's own word, if it has one.
pub(super) fn draw(options: &Options, caption: Option<&str>, picture: usize, random: &mut Stream) -> String {
    let (index, own_word) = (random.below(templates(options)), random.chance(0.5));
    let prompt = match caption {
        Some(caption) => caption.to_string(),
        None => template(options, index).replace(PLACE, &subject(options)),
    };
    match options.per_image_tokens && own_word {
        true => format!("{prompt} {}", picture_word(picture)),
        false => prompt,
    }
}

/// All prompts that a training of so many pictures may use.
pub(super) fn all(options: &Options, captions: Option<&[String]>, pictures: usize) -> Vec<String> {
    let mut prompts = match captions {
        Some(captions) => captions.to_vec(),
        None => (0..templates(options)).map(|i| template(options, i).replace(PLACE, &subject(options))).collect(),
    };
    if options.per_image_tokens {
        let own = |prompt: &String| (0..pictures).map(|i| format!("{prompt} {}", picture_word(i))).collect::<Vec<_>>();
        prompts.extend(prompts.iter().flat_map(own).collect::<Vec<_>>());
    }
    if options.prior_weight > 0.0 {
        prompts.extend((0..templates(options)).map(|i| prior(options, i)));
    }
    if options.sample_every > 0 {
        prompts.push(sample(options));
    }
    prompts
}

/// The prompt of group `index` of the pictures for prior preservation: a template with the plain class word.
pub(super) fn prior(options: &Options, index: usize) -> String {
    template(options, index).replace(PLACE, options.class_word.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn options() -> Options {
        Options { class_word: "dog".into(), ..Options::default() }
    }

    fn some(options: &Options, caption: Option<&str>) -> Vec<String> {
        (0..400).map(|step| draw(options, caption, 2, &mut Stream::new(5, Purpose::Prompts, step))).collect()
    }

    #[test]
    fn prompts_are_the_templates_with_identifier_and_class() {
        let without = Options { per_image_tokens: false, ..options() };
        let mut all = some(&without, None);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 27);
        assert!(all.contains(&"a photo of my [V] dog".to_string()), "{all:?}");
        let bare = Options { use_class_word: false, templates: vec!["see {}".into()], ..without };
        assert_eq!(some(&bare, None)[0], "see [V]");
        assert_eq!(prior(&options(), 27), "a photo of a dog");
        assert_eq!(sample(&options()), "a photo of a [V] dog");
        assert_eq!(sample(&Options { sample_prompt: Some("[V] sleeps".into()), ..options() }), "[V] sleeps");
    }

    #[test]
    fn all_prompts_are_known_beforehand() {
        let with = Options { prior_weight: 1.0, sample_every: 2, ..options() };
        let captions = ["my [V] sleeps".to_string(), "[V] eats".to_string(), "[V] runs".to_string()];
        let known = [all(&with, None, 3), all(&with, Some(&captions), 3)];
        let drawn = [some(&with, None), some(&with, Some(&captions[2]))];
        for (known, drawn) in known.iter().zip(drawn) {
            assert!(drawn.iter().all(|prompt| known.contains(prompt)));
            assert!((0..30).all(|i| known.contains(&prior(&with, i))) && known.contains(&sample(&with)));
        }
        assert_eq!(all(&options(), None, 3).len(), 27 * 4);
        assert_eq!(all(&Options { per_image_tokens: false, ..options() }, Some(&captions), 3), captions);
    }

    #[test]
    fn half_of_the_prompts_end_in_the_word_of_their_picture() {
        let all = some(&options(), None);
        let own = all.iter().filter(|p| p.ends_with("dog [*2*]")).count();
        assert!((160..240).contains(&own), "{own}");
        let captions = some(&options(), Some("my [V] sleeps"));
        assert!(captions.iter().all(|p| p == "my [V] sleeps" || p == "my [V] sleeps [*2*]"));
    }
}
