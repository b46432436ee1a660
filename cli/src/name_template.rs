//! `get --name`: file names made from a template. All names of a job are checked before anything is
//! written: each must be a valid file name on every system (see [`crate::file_name`]), and no two
//! may be the same file on any system.

use std::collections::HashMap;

use darkroom_core::{digest::Digest, error::UserError, output::Format};
use darkroom_proto::v1;

use crate::{
    client::{Client, Pages},
    failure::Result,
    file_name::{folded, forbidden, unfit},
};

/// How `get` names pictures by default.
pub(crate) const BY_INDEX: &str = "{index:06}";

/// Extensions that a template may end with; the picture's own takes their place.
const EXTENSIONS: [&str; 4] = [".png", ".jpg", ".jpeg", ".webp"];

const ACCEPTED: &str = "{custom_id}, {seed}, {index}, {line}, {job} and {label:KEY}, and {index:06} for numbers of six digits";

/// A parsed template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NameTemplate(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    CustomId,
    Job,
    Label(String),
    /// With at least this many digits.
    Number(Number, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Index,
    Seed,
    Line,
}

impl NameTemplate {
    /// Reads a template. `{{` and `}}` are braces; a picture's extension at its end changes
    /// nothing.
    pub(crate) fn parse(template: &str) -> Result<Self> {
        let without = |extension: &str| {
            let (stem, tail) =
                template.split_at_checked(template.len().checked_sub(extension.len())?)?;
            tail.eq_ignore_ascii_case(extension).then_some(stem)
        };
        let stem = EXTENSIONS.into_iter().find_map(without).unwrap_or(template);
        let (mut parts, mut text) = (Vec::new(), String::new());
        let mut rest = stem;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = match (c, after.chars().next()) {
                ('{', Some('{')) | ('}', Some('}')) => {
                    text.push(c);
                    &after[1..]
                }
                ('{', _) => {
                    let (name, after) = after.split_once('}').ok_or_else(|| {
                        refused(template, "a { without a }; accepted: {{ for a brace itself")
                    })?;
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    parts.push(placeholder(template, name)?);
                    after
                }
                ('}', _) => {
                    return Err(refused(
                        template,
                        "a } without a {; accepted: }} for a brace itself",
                    ));
                }
                _ => {
                    if let Some(why) = forbidden(c) {
                        return Err(refused(template, &why));
                    }
                    text.push(c);
                    after
                }
            };
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self(parts))
    }

    /// The file name of an image's picture, extension included.
    pub(crate) fn name(&self, image: &v1::Image) -> Result<String> {
        self.name_of(image, image.format().known())
    }

    /// The name of a file of this format that shows an image.
    pub(crate) fn name_of(&self, image: &v1::Image, format: Format) -> Result<String> {
        let missing = |what: &str| {
            let message = format!(
                "image {}{} has no {what}, which --name uses; accepted: placeholders that all \
                 images have a value for ({ACCEPTED})",
                image.index,
                of_line(image)
            );
            UserError::invalid("name", message)
        };
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name += text,
                Part::CustomId if image.custom_id.is_empty() => return Err(missing("custom_id")),
                Part::CustomId => name += &image.custom_id,
                Part::Job => name += &image.job_id,
                Part::Label(key) => {
                    let value = image.labels.get(key);
                    name += value.ok_or_else(|| missing(&format!("label {key:?}")))?;
                }
                Part::Number(Number::Line, _) if image.line == 0 => return Err(missing("line")),
                Part::Number(number, width) => {
                    let number = match number {
                        Number::Index => image.index,
                        Number::Seed => image.seed,
                        Number::Line => image.line,
                    };
                    name += &format!("{number:0width$}", width = *width);
                }
            }
        }
        let extension = format.extension();
        let file = format!("{name}.{extension}");
        if let Some(why) = unfit(&name, extension) {
            let message = format!(
                "image {}{} would be named {:?}, {why}; accepted: a template that gives every \
                 image a valid file name",
                image.index,
                of_line(image),
                file
            );
            return Err(UserError::invalid("name", message));
        }
        Ok(file)
    }
}

/// Makes the names of all images of a job with `name`. Refuses the first name that is not a valid
/// file name or that another image has.
pub(crate) async fn check(
    client: &Client,
    job: &str,
    name: impl Fn(&v1::Image) -> Result<String>,
) -> Result<()> {
    let mut names = Names::default();
    let (mut pages, mut token) = (Pages::default(), String::new());
    loop {
        let page = client.images(job, &[], token).await?;
        for image in &page.images {
            names.add(image, &name(image)?)?;
        }
        match pages.next(page.next_page_token)? {
            Some(next) => token = next,
            None => return Ok(()),
        }
    }
}

/// The names so far, in a form that ignores case and the composition of letters, as some file
/// systems do.
#[derive(Default)]
struct Names(HashMap<[u8; 16], u64>);

impl Names {
    fn add(&mut self, image: &v1::Image, name: &str) -> Result<()> {
        let mut hash = [0; 16];
        hash.copy_from_slice(&Digest::of(folded(name).as_bytes()).0[..16]);
        let Some(other) = self.0.insert(hash, image.index) else { return Ok(()) };
        let message = format!(
            "image {}{} would be named {name:?}, and so would image {other} (some file systems \
             ignore case and the composition of letters); accepted: a template that gives every \
             image its own name, with {{index}} or {{seed}} for example",
            image.index,
            of_line(image)
        );
        Err(UserError::invalid("name", message))
    }
}

fn of_line(image: &v1::Image) -> String {
    if image.line == 0 { String::new() } else { format!(" (line {})", image.line) }
}

fn placeholder(template: &str, name: &str) -> Result<Part> {
    let (word, rest) = name.split_once(':').map_or((name, None), |(word, rest)| (word, Some(rest)));
    let number = match (word, rest) {
        ("custom_id", None) => return Ok(Part::CustomId),
        ("job", None) => return Ok(Part::Job),
        ("label", Some(key)) if !key.is_empty() => return Ok(Part::Label(key.to_owned())),
        ("index", _) => Number::Index,
        ("seed", _) => Number::Seed,
        ("line", _) => Number::Line,
        _ => {
            return Err(refused(
                template,
                &format!("the placeholder {{{name}}}; accepted: {ACCEPTED}"),
            ));
        }
    };
    let Some(width) = rest else { return Ok(Part::Number(number, 0)) };
    let digits = width.strip_prefix('0').and_then(|digits| digits.parse().ok());
    match digits.filter(|digits| (1..=20).contains(digits)) {
        Some(digits) => Ok(Part::Number(number, digits)),
        None => Err(refused(
            template,
            &format!(
                "the placeholder {{{name}}}; accepted: {{{word}}}, or {{{word}:06}} for at least 6 digits, up to 20"
            ),
        )),
    }
}

fn refused(template: &str, has: &str) -> UserError {
    UserError::invalid("name", format!("name is {template:?}, which has {has}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(index: u64, custom_id: &str) -> v1::Image {
        let labels = [("tag", "two objects"), ("empty", ""), ("bad", "a/b")];
        v1::Image {
            job_id: "0190".to_owned(),
            index,
            seed: u64::MAX,
            line: if custom_id.is_empty() { 0 } else { index + 1 },
            custom_id: custom_id.to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..v1::Image::default()
        }
    }

    fn name(template: &str, image: &v1::Image) -> Result<String> {
        NameTemplate::parse(template)?.name(image)
    }

    #[test]
    fn a_template_names_images_by_what_they_have() {
        let cat = image(7, "cat");
        for (template, expected) in [
            (BY_INDEX, "000007.png"),
            ("{custom_id}-{seed}", "cat-18446744073709551615.png"),
            ("{job}_{line:03}_{index}", "0190_008_7.png"),
            ("{label:tag} {{{index:02}}}", "two objects {07}.png"),
            ("{custom_id}.PNG", "cat.png"),
            ("{custom_id}{label:empty}", "cat.png"),
            ("é{index}漢", "é7漢.png"),
            ("{index:01}", "7.png"),
        ] {
            assert_eq!(name(template, &cat).expect(template), expected);
        }
        assert_eq!(name(BY_INDEX, &image(1_234_567, "")).expect("longer"), "1234567.png");
        for (format, expected) in [
            (v1::PictureFormat::Png, "cat.png"),
            (v1::PictureFormat::Jpeg, "cat.jpg"),
            (v1::PictureFormat::Webp, "cat.webp"),
        ] {
            let cat = v1::Image { format: format.into(), ..cat.clone() };
            for template in
                ["{custom_id}", "{custom_id}.png", "{custom_id}.JPEG", "{custom_id}.webp"]
            {
                assert_eq!(name(template, &cat).expect(template), expected);
            }
        }
        assert_eq!(name("{custom_id}.gif", &cat).expect("a dot"), "cat.gif.png");
    }

    #[test]
    fn what_a_template_cannot_have_is_named() {
        for (template, word) in [
            ("{prompt}", "{prompt}"),
            ("{custom_id:03}", "{custom_id:03}"),
            ("{label:}", "{label:}"),
            ("{label}", "{label}"),
            ("{}", "{}"),
            ("{ index }", "{ index }"),
            ("{index:6}", "{index:6}"),
            ("{index:0}", "{index:0}"),
            ("{index:00}", "{index:00}"),
            ("{index:021}", "{index:021}"),
            ("{seed:0x}", "{seed:0x}"),
            ("{index", "{ without a }"),
            ("index}", "} without a {"),
            ("{{index}", "} without a {"),
            ("a/{index}", "'/'"),
            ("..\\{index}", "'\\\\'"),
            ("{index}?", "'?'"),
            ("a\n{index}", "U+000A"),
            ("a\u{202E}{index}", "U+202E"),
        ] {
            let error = NameTemplate::parse(template).expect_err(template);
            assert_eq!(error.field.as_deref(), Some("name"));
            assert!(
                error.message.contains(word) && error.message.contains("accepted:"),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn a_name_that_is_no_files_everywhere_is_refused_with_its_image() {
        let error = name("{custom_id}", &image(3, "../up")).expect_err("a separator");
        assert_eq!(error.field.as_deref(), Some("name"));
        assert!(
            error.message.starts_with("image 3 (line 4) would be named \"../up.png\""),
            "{}",
            error.message
        );
        let error = name("{custom_id}", &image(3, "a\u{1b}[2J\n")).expect_err("controls");
        assert!(!error.message.contains(['\n', '\u{1b}']), "{}", error.message);
        for (template, word) in [
            ("{custom_id}", "no custom_id"),
            ("{line}", "no line"),
            ("{label:nothing}", "no label \"nothing\""),
            ("{label:empty}", "nothing before the extension"),
            ("{label:bad}", "'/'"),
            ("", "nothing before the extension"),
            (".png", "nothing before the extension"),
        ] {
            let error = name(template, &image(3, "")).expect_err(template);
            assert!(error.message.starts_with("image 3 "), "{}", error.message);
            assert!(
                error.message.contains(word) && error.message.contains("accepted:"),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn names_that_are_one_file_somewhere_are_refused_with_both_images() {
        for (one, other) in [("a", "a"), ("Cat", "cAT"), ("caf\u{E9}", "cafe\u{301}")] {
            let mut names = Names::default();
            names.add(&image(0, "x"), "other.png").expect("the first");
            names.add(&image(1, one), &format!("{one}.png")).expect("the second");
            let error = names.add(&image(9, other), &format!("{other}.png")).expect_err(other);
            assert!(
                error.message.starts_with("image 9 (line 10) would be named"),
                "{}",
                error.message
            );
            assert!(error.message.contains("so would image 1 "), "{}", error.message);
        }
        let mut names = Names::default();
        for (index, id) in (0..).zip(["a", "b", "a-1", "ä", "漢", "字"]) {
            names.add(&image(index, id), &format!("{id}.png")).expect(id);
        }
    }
}
