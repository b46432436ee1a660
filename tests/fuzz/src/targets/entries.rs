//! What lies in Redis: tasks, results and workers' cards, which anybody with access may write.

use darkroom_queue::redis::fuzzed;

use crate::verdict::Verdict;

/// An entry of a stream: the name of its second field, its key, and its body.
pub(super) fn entries(data: &[u8]) -> Verdict {
    let mut parts = data.splitn(3, |byte| *byte == b'\n').map(<[u8]>::to_vec);
    let (field, key, body) = (parts.next(), parts.next(), parts.next());
    let fields: Vec<Vec<u8>> =
        [Some(b"k".to_vec()), key, field, body].into_iter().flatten().collect();
    let task = fuzzed::task(fields.clone());
    let result = fuzzed::result(fields);
    match (task, result) {
        (Ok(task), Err(_)) => {
            let fields = fuzzed::fields_of_task(&task).expect("a task is written");
            assert_eq!(fuzzed::task(fields).as_ref(), Ok(&task));
            let passes = task.body.passes();
            assert!(passes.is_nan() || passes >= 0.0, "{task:?}");
            Verdict::accepted(format_args!("task {}", task.suspect))
        }
        (Err(_), Ok(result)) => {
            let fields = fuzzed::fields_of_result(&result).expect("a result is written");
            assert_eq!(fuzzed::result(fields).as_ref(), Ok(&result));
            let outcome = format!("{:?}", result.outcome);
            Verdict::accepted(outcome.split(' ').next().unwrap_or_default())
        }
        (Err(task), Err(_)) => Verdict::refused(task, data),
        (Ok(task), Ok(_)) => panic!("it is a task and a result: {task:?}"),
    }
}

/// A worker's card.
pub(super) fn cards(data: &[u8]) -> Verdict {
    let Some(card) = fuzzed::card(1500, data) else {
        return Verdict::refused("it is skipped", data);
    };
    let written = serde_json::to_string(&card).expect("a card has a JSON");
    assert_eq!(fuzzed::card(1500, written.as_bytes()).as_ref(), Some(&card), "{written}");
    let place = card.place();
    // `cpu` stands for a device without a name.
    assert!(place.len() <= card.host.len() + card.device.len() + 4, "{place:?}");
    Verdict::accepted(format_args!("{:?} {}", card.state, card.pools.len().min(3)))
}
