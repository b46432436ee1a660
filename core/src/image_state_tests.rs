//! Properties of the image's state machine, and one test per guard.

use proptest::prelude::*;

use super::*;

fn ready(stage: usize) -> ImageProgress {
    ImageProgress {
        state: ImageState::Ready,
        stage,
        generation: 2,
        dispatch: 7,
        failures: 0,
        places: Vec::new(),
        suspect: false,
    }
}

fn dispatched(stage: usize) -> ImageProgress {
    transition(&ready(stage), &ImageEvent::Dispatch, 3).expect("ready")
}

fn failure(place: &str, alone: bool, live_places: usize) -> Failure<'_> {
    Failure { place, alone, live_places, death_limit: None }
}

fn handout(image: &ImageProgress) -> Handout {
    Handout { generation: image.generation, dispatch: image.dispatch, stage: image.stage }
}

#[test]
fn a_success_moves_on_and_the_last_one_ends_it() {
    let image = dispatched(1);
    let next = transition(&image, &ImageEvent::Succeeded(handout(&image)), 3).expect("moves");
    assert_eq!((next.state, next.stage), (ImageState::Ready, 2));
    let image = dispatched(2);
    let last = transition(&image, &ImageEvent::Succeeded(handout(&image)), 3);
    assert_eq!(last.expect("ends").state, ImageState::Done);
}

#[test]
fn a_success_counts_until_its_task_is_handed_out_again() {
    let image = dispatched(1);
    let success = |handout| ImageEvent::Succeeded(handout);
    let held = handout(&image);
    let returned = transition(&image, &ImageEvent::Returned(held), 3).expect("held");
    transition(&returned, &success(held), 3).expect("taken back, and not handed out again");
    let again = transition(&returned, &ImageEvent::Dispatch, 3).expect("ready");
    assert_eq!(transition(&again, &success(held), 3), Err(Refusal::StaleDispatch));
    let held = handout(&again);
    transition(&again, &success(held), 3).expect("its own");
    assert_eq!(
        transition(&again, &success(Handout { generation: 1, ..held }), 3),
        Err(Refusal::StaleGeneration)
    );
    assert_eq!(
        transition(&again, &success(Handout { stage: 0, ..held }), 3),
        Err(Refusal::OtherStage)
    );
}

#[test]
fn a_failure_of_an_older_dispatch_is_refused() {
    let image = dispatched(0);
    let stale = Handout { dispatch: image.dispatch - 1, ..handout(&image) };
    let failed = ImageEvent::Failed { handout: stale, failure: failure("a", true, 1) };
    assert_eq!(transition(&image, &failed, 3), Err(Refusal::StaleDispatch));
    assert_eq!(transition(&image, &ImageEvent::Returned(stale), 3), Err(Refusal::StaleDispatch));
}

#[test]
fn five_failures_alone_on_one_host_are_death_and_interruptions_are_not() {
    let mut image = dispatched(0);
    for round in 1..=5 {
        image = transition(&image, &ImageEvent::Returned(handout(&image)), 3).expect("held");
        image = transition(&image, &ImageEvent::Dispatch, 3).expect("ready");
        let failed =
            ImageEvent::Failed { handout: handout(&image), failure: failure("a", true, 1) };
        image = transition(&image, &failed, 3).expect("held");
        assert_eq!(image.failures, round);
        assert!(image.suspect, "runs alone from now on");
        if round < 5 {
            image = transition(&image, &ImageEvent::Dispatch, 3).expect("ready again");
        }
    }
    assert_eq!(image.state, ImageState::Dead);
    let again = transition(&image, &ImageEvent::Retry { encoded: true }, 3).expect("retried");
    assert_eq!((again.state, again.failures, again.generation), (ImageState::Ready, 0, 3));
}

#[test]
fn a_suspect_runs_alone_until_its_stage_is_done() {
    let image = dispatched(0);
    let failed = ImageEvent::Failed { handout: handout(&image), failure: failure("a", false, 1) };
    let again =
        transition(&transition(&image, &failed, 3).expect("held"), &ImageEvent::Dispatch, 3);
    let suspect = again.expect("ready");
    let returned = transition(&suspect, &ImageEvent::Returned(handout(&suspect)), 3).expect("held");
    assert!(suspect.suspect && returned.suspect, "an interruption clears nobody");
    let success = ImageEvent::Succeeded(handout(&suspect));
    assert!(
        !transition(&suspect, &success, 3).expect("fresh").suspect,
        "the next stage may share a batch"
    );
}

#[test]
fn a_missing_input_rewinds_its_producer_in_a_new_generation() {
    let image = dispatched(1);
    let missing = |producer| ImageEvent::InputMissing { handout: handout(&image), producer };
    let before = transition(&image, &missing(Producer::StageBefore), 3).expect("held");
    assert_eq!((before.state, before.stage, before.generation), (ImageState::Ready, 0, 3));
    let encoder = transition(&image, &missing(Producer::Encoder), 3).expect("held");
    assert_eq!((encoder.state, encoder.stage, encoder.failures), (ImageState::Waiting, 1, 0));
}

#[test]
fn a_lost_picture_runs_its_last_stage_again_and_only_a_picture_can_be_lost() {
    let last = dispatched(2);
    let success = ImageEvent::Succeeded(handout(&last));
    let image = transition(&last, &success, 3).expect("ends");
    let again = transition(&image, &ImageEvent::Lost { encoded: true }, 3).expect("was done");
    assert_eq!((again.state, again.stage, again.generation), (ImageState::Ready, 2, 3));
    let waits = transition(&image, &ImageEvent::Lost { encoded: false }, 3).expect("was done");
    assert_eq!(waits.state, ImageState::Waiting);
    for state in ImageState::ALL.into_iter().filter(|state| *state != ImageState::Done) {
        let image = ImageProgress { state, ..image.clone() };
        let lost = transition(&image, &ImageEvent::Lost { encoded: true }, 3);
        assert_eq!(lost, Err(Refusal::OtherState), "{state}");
    }
}

fn events() -> impl Strategy<Value = u8> {
    0_u8..12
}

fn event(number: u8, image: &ImageProgress, skew: u64) -> ImageEvent<'static> {
    let handout = Handout { dispatch: image.dispatch.wrapping_sub(skew), ..handout(image) };
    match number {
        0 => ImageEvent::TextsEncoded,
        1 => ImageEvent::TextsDead,
        2 => ImageEvent::TextsLost,
        3 => ImageEvent::Dispatch,
        4 => ImageEvent::Succeeded(handout),
        5 => ImageEvent::Failed { handout, failure: failure("a", true, 1) },
        6 => ImageEvent::Failed { handout, failure: failure("b", false, 4) },
        7 => ImageEvent::Returned(handout),
        8 => ImageEvent::InputMissing { handout, producer: Producer::StageBefore },
        9 => ImageEvent::Cancel,
        10 => ImageEvent::Lost { encoded: true },
        _ => ImageEvent::Retry { encoded: true },
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(steps in prop::collection::vec((events(), 0_u64..2), 0..200)) {
        let mut image = ImageProgress { state: ImageState::Waiting, dispatch: 5, ..ready(0) };
        for (number, skew) in steps {
            let event = event(number, &image, skew);
            let Ok(next) = transition(&image, &event, 3) else { continue };
            let retried = matches!(event, ImageEvent::Retry { .. } | ImageEvent::Lost { .. });
            prop_assert!(!image.state.terminal() || retried, "terminal states change only by retry");
            prop_assert!(next.generation >= image.generation && next.dispatch >= image.dispatch);
            prop_assert_eq!(next.dispatch - image.dispatch, u64::from(number == 3));
            prop_assert!(next.stage < 3);
            prop_assert!(next.failures >= image.failures || retried);
            prop_assert!(next.places.len() <= next.failures as usize);
            if next.stage < image.stage {
                prop_assert!(next.generation > image.generation, "going back makes a new generation");
            }
            image = next;
        }
    }
}
