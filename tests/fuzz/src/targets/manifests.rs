//! Manifests, as somebody verifies them.

use darkroom_artifacts::manifest::{Checker, ImageLine, Writer, verify};

use crate::verdict::Verdict;

pub(super) fn manifests(data: &[u8]) -> Verdict {
    let mut images: Vec<ImageLine> = Vec::new();
    let verified = verify(data, |image| images.push(image));
    // A checker goes on after a wrong line, and finds something wrong if `verify` does.
    let mut checker = Checker::default();
    let mut wrong = false;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        if let Some(error) = checker.line(line).1 {
            wrong = true;
            drop(Verdict::refused(error, data));
        }
    }
    let counted = checker.counted().clone();
    wrong |= checker.finish().is_err();
    assert_eq!(wrong, verified.is_err(), "the two readers disagree: {verified:?}");
    let (header, totals) = match verified {
        Ok(verified) => verified,
        Err(error) => return Verdict::refused(error, data),
    };
    assert_eq!(counted, totals);
    let mut writer = Writer::new(Vec::new(), &header).expect("memory");
    for image in &images {
        writer.image(image.clone()).expect("memory");
    }
    let (written, again) = writer.finish().expect("memory");
    assert_eq!(again, totals);
    let mut read = Vec::new();
    let whole = verify(&written[..], |image| read.push(image)).expect("our own");
    assert_eq!((whole, read), ((header, totals), images));
    Verdict::accepted(format_args!("{} {}", counted.images, counted.done))
}
