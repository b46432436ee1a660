//! `darkroom map`: the states of all images of a job, in runs.

use darkroom_core::shown::shown;
use darkroom_proto::{
    json::{self, Named as _},
    v1,
};

use crate::{
    args::MapArgs,
    client::{Client, Pages},
    failure::Result,
    output,
};

/// What a code has of the stage's position; the rest is the state.
const STATES: u32 = 8;

/// Prints the runs, a line each, or the farm's answers as documents.
pub(crate) async fn show(client: &Client, args: &MapArgs, as_json: bool) -> Result<()> {
    let (mut first, mut since) = (0, args.changed_since);
    let mut pages = Pages::default();
    loop {
        let map = client.image_map(&args.job, first, since).await?;
        if as_json {
            output::json(&json::GetImageMapResponse::from(&map))?;
        } else {
            lines(&map).iter().try_for_each(|line| output::line(line))?;
        }
        match pages.next_index(first, map.next_index)? {
            // What follows is the rest of a whole map.
            Some(next) => (first, since) = (next, 0),
            None => return Ok(()),
        }
    }
}

/// A line for each run.
fn lines(map: &v1::GetImageMapResponse) -> Vec<String> {
    let mut next = map.first_index;
    let skips = map.skips.iter().copied().chain(std::iter::repeat(0));
    let runs = map.codes.iter().zip(&map.lengths).zip(skips);
    let line = |((code, length), skip): ((&u32, &u64), u64)| {
        let first = next.saturating_add(skip);
        next = first.saturating_add(*length);
        let state = i32::try_from(code % STATES).unwrap_or(0);
        let state = v1::ImageState::try_from(state).unwrap_or_default();
        let last = next.saturating_sub(1);
        let mut line = format!("{first:06}-{last:06}  {}", state.name());
        use v1::ImageState as S;
        if matches!(state, S::Ready | S::Dispatched | S::Dead | S::Cancelled) {
            let stage = usize::try_from(code / STATES).ok().and_then(|at| map.stages.get(at));
            line += &format!("  {}", shown(stage.map_or("", String::as_str)));
        }
        line
    };
    runs.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_told_by_their_first_and_last_image() {
        let map = v1::GetImageMapResponse {
            first_index: 10,
            stages: vec!["base".to_owned(), "sr256".to_owned()],
            codes: vec![4, 2 + 8, 1, 99],
            lengths: vec![5, 1, 3, 1],
            skips: vec![0, 2, 0, 0],
            ..Default::default()
        };
        let expected = [
            "000010-000014  done",
            "000017-000017  ready  sr256",
            "000018-000020  waiting",
            "000021-000021  dispatched  ",
        ];
        assert_eq!(lines(&map), expected, "a stage of a newer version has no name here");
        let whole = v1::GetImageMapResponse { skips: Vec::new(), ..map };
        assert_eq!(lines(&whole)[1], "000015-000015  ready  sr256");
    }
}
