//! The walk on messages that are well formed, too large, and broken.

use proptest::{collection, option, prelude::*};

use super::*;
use crate::v1;

fn check<M: Message + prost::Name>(bytes: &[u8]) -> Result<(), Refusal> {
    Tables::get().check(&M::full_name(), bytes)
}

fn too_many(refusal: Result<(), Refusal>) -> (String, u32) {
    match refusal {
        Err(Refusal::TooMany { field, limit, .. }) => (field, limit),
        other => panic!("{other:?}"),
    }
}

/// A field of bytes that holds `inner`.
fn field(number: u32, inner: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
    bytes.extend_from_slice(inner);
    bytes
}

#[test]
fn millions_of_empty_stages_are_refused_by_the_path_of_their_field() {
    let settings = field(2, &[]).repeat(31_000_000);
    let request = field(1, &field(6, &settings));
    assert!(request.len() > 60_000_000);
    let refused = too_many(check::<v1::SubmitJobRequest>(&request));
    assert_eq!(refused, ("spec.settings.stages".to_owned(), 64));
}

#[test]
fn eight_million_states_are_refused_before_they_are_decoded() {
    for states in [field(4, &vec![1; 8_000_000]), [0x20, 0x01].repeat(8_000_000)] {
        let refused = too_many(check::<v1::ListJobsRequest>(&states));
        assert_eq!(refused, ("states".to_owned(), 32));
    }
}

#[test]
fn each_repeated_field_keeps_its_limit_in_each_message_and_names_its_element() {
    let limit = |name: &str| limit_of(name).expect("a limit").0 as usize;
    let label = field(9, &[field(1, b"k"), field(2, b"v")].concat());
    let most = limit("Prompt.labels");
    let prompt = |labels: usize| field(1, &label.repeat(labels));
    let chunk = |prompts: &[u8]| field(2, prompts);
    check::<v1::SubmitJobChunk>(&chunk(&prompt(most).repeat(3))).expect("within the limit");
    let over = [prompt(most), prompt(most + 1)].concat();
    let refused = too_many(check::<v1::SubmitJobChunk>(&chunk(&over)));
    assert_eq!(refused, ("prompts.prompts[1].labels".to_owned(), 64));

    let most = limit("PromptChunk.prompts");
    check::<v1::SubmitJobChunk>(&chunk(&prompt(0).repeat(most))).expect("within the limit");
    let refused = too_many(check::<v1::SubmitJobChunk>(&chunk(&prompt(0).repeat(most + 1))));
    assert_eq!(refused.0, "prompts.prompts");
}

#[test]
fn numbers_count_packed_and_unpacked() {
    let most = limit_of("StageSettings.timesteps").expect("a limit").0 as usize;
    let packed = |count: usize| field(7, &vec![1; count]);
    let wide = |count: usize| field(7, &[0xe7, 0x07].repeat(count));
    let single = |count: usize| [0x38, 0x01].repeat(count);
    for form in [packed as fn(usize) -> Vec<u8>, wide, single] {
        check::<v1::StageSettings>(&form(most)).expect("within the limit");
        assert_eq!(too_many(check::<v1::StageSettings>(&form(most + 1))).0, "timesteps");
    }
    let several = packed(1).repeat(most + 1);
    assert_eq!(too_many(check::<v1::StageSettings>(&several)).0, "timesteps");
}

#[test]
fn pages_of_jobs_with_long_lists_of_timesteps_are_read() {
    let most = limit_of("StageSettings.timesteps").expect("a limit").0 as usize;
    let job = |timesteps: usize| {
        let stage =
            v1::StageSettings { timesteps: (0..timesteps as u32).collect(), ..Default::default() };
        let settings = v1::Settings { stages: vec![stage; 3], ..Default::default() };
        let spec = v1::JobSpec { settings: Some(settings), ..Default::default() };
        v1::Job { spec: Some(spec), ..Default::default() }
    };
    // Far more numbers than the limit for other elements.
    let page = v1::ListJobsResponse { jobs: vec![job(1000); 100], ..Default::default() };
    const { assert!(100 * 3 * 1000 > MAX_ELEMENTS) };
    check::<v1::ListJobsResponse>(&page.encode_to_vec()).expect("within the limits");
    let page = v1::ListJobsResponse { jobs: vec![job(1), job(most + 1)], ..Default::default() };
    let refused = too_many(check::<v1::ListJobsResponse>(&page.encode_to_vec()));
    assert_eq!(refused, ("jobs[1].spec.settings.stages[0].timesteps".to_owned(), 2000));
}

/// Numbers do not count towards the total: each takes at least one byte on the wire and at most
/// eight in memory, and a growing list doubles its room. So the message's size bounds them, and the
/// server's memory budget allows for that.
#[test]
fn numbers_take_at_most_eight_times_their_bytes() {
    let most = limit_of("StageSettings.timesteps").expect("a limit").0 as usize;
    let stages = limit_of("Settings.stages").expect("a limit").0 as usize;
    let packed = field(7, &vec![1; most]);
    let split = field(7, &[1; 4]).repeat(most / 4);
    let single = [0x38, 0x01].repeat(most);
    let just_more_than_a_power_of_two = field(7, &vec![1; 1025]);
    for timesteps in [packed, split, single, just_more_than_a_power_of_two] {
        let request = field(1, &field(6, &field(2, &timesteps).repeat(stages)));
        check::<v1::SubmitJobRequest>(&request).expect("within the limits");
        let decoded = v1::SubmitJobRequest::decode(request.as_slice()).expect("a request");
        let settings = decoded.spec.and_then(|spec| spec.settings).expect("settings");
        assert_eq!(settings.stages.len(), stages);
        let room: usize = settings.stages.iter().map(|stage| stage.timesteps.capacity() * 4).sum();
        assert!(room <= 8 * request.len(), "{room} bytes of {} on the wire", request.len());
    }
}

/// Every list of numbers of the protocol has a limit of its own, and none is inside a list that can
/// be long. So their product is bounded. Think about that here for each new list.
#[test]
fn only_lists_that_are_short_hold_lists_of_numbers() {
    let tables = Tables::get();
    let of_numbers: Vec<String> = tables
        .by_name
        .iter()
        .filter(|(name, _)| name.starts_with("darkroom."))
        .flat_map(|(name, place)| {
            let fields = &tables.types[usize::from(*place)].fields;
            let numbers = |field: &&Field| {
                field.repeated.is_some() && !matches!(field.kind, Kind::Message(_) | Kind::Bytes)
            };
            fields.iter().filter(numbers).map(move |field| format!("{name}.{}", field.name))
        })
        .collect();
    let mut of_numbers = of_numbers;
    of_numbers.sort();
    assert_eq!(
        of_numbers,
        [
            "darkroom.v1.CreateKeyRequest.scopes",
            "darkroom.v1.GetImageMapResponse.codes",
            "darkroom.v1.GetImageMapResponse.lengths",
            "darkroom.v1.GetImageMapResponse.skips",
            "darkroom.v1.ImageFilter.states",
            // In a page of at most 1,000 keys, 16 each.
            "darkroom.v1.Key.scopes",
            "darkroom.v1.ListImagesRequest.states",
            "darkroom.v1.ListJobsRequest.states",
            "darkroom.v1.Sheet.tiles",
            "darkroom.v1.StageSettings.timesteps",
        ]
    );
}

#[test]
fn a_part_that_comes_twice_is_not_merged() {
    // A decoder would merge the two, with the stages of both in one list.
    let spec = field(1, &field(6, &field(2, &[]).repeat(60)));
    check::<v1::SubmitJobRequest>(&spec).expect("once");
    assert_eq!(too_many(check::<v1::SubmitJobRequest>(&spec.repeat(2))), ("spec".to_owned(), 1));
    let settings = field(6, &field(2, &[]).repeat(60)).repeat(2);
    let refused = too_many(check::<v1::SubmitJobRequest>(&field(1, &settings)));
    assert_eq!(refused, ("spec.settings".to_owned(), 1));
}

#[test]
fn all_lists_together_have_a_limit() {
    let label = field(9, &[]);
    let prompt = field(1, &label.repeat(50));
    let refused = check::<v1::PromptChunk>(&prompt.repeat(MAX_ELEMENTS as usize / 50));
    assert_eq!(refused, Err(Refusal::TooManyInAll));
}

#[test]
fn the_largest_submit_with_labels_and_settings_for_each_prompt_is_accepted() {
    let stage = v1::StageSettings { steps: Some(1), ..Default::default() };
    let settings = v1::Settings { stages: vec![stage; 3], ..Default::default() };
    let labels = (0..16).map(|number| (format!("{number:x}"), String::new())).collect();
    let prompt = v1::Prompt {
        text: "p".to_owned(),
        labels,
        settings: Some(settings.clone()),
        ..Default::default()
    };
    let labels = prompt.labels.clone();
    let spec = v1::JobSpec { settings: Some(settings), labels, ..Default::default() };
    let request = v1::SubmitJobRequest { spec: Some(spec), prompts: vec![prompt; 10_000] };
    let bytes = request.encode_to_vec();
    assert!(bytes.len() <= crate::bounds::MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
    check::<v1::SubmitJobRequest>(&bytes).expect("within the limits");
}

/// The most memory that the elements of a hostile message can take, each of the largest type
/// allowed in that number.
#[test]
fn as_many_elements_as_may_be_take_a_bounded_memory() {
    let prompts = limit_of("PromptChunk.prompts").expect("a limit").0 as usize;
    let stages = (MAX_ELEMENTS as usize - prompts) * size_of::<v1::StageSettings>();
    let room = prompts * size_of::<v1::Prompt>() + stages;
    // A growing list may have twice the room that it needs.
    assert!(2 * room <= 150 << 20, "{room} bytes");
}

#[test]
fn broken_bytes_are_refused_as_such() {
    let malformed: [&[u8]; 12] = [
        &[0x0a],                                                             // a length is missing
        &[0x0a, 0x05, 0x00], // shorter than its length
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // a length of 2⁶⁴
        // A key of eleven bytes.
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00],
        &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], // a number of 65 bits
        &[0x00, 0x00],                                                       // field 0
        &[0x0b, 0x0c],                                                       // a group
        &[0xfb, 0x07, 0xfc, 0x07],                                           // an unknown group
        &[0x0e],                                                             // wire type 6
        &[0x0f],                                                             // wire type 7
        &[0x08, 0x01],                                                       // a text as a number
        &[0x1d, 0x00, 0x00, 0x00], // too short a fixed number
    ];
    for bytes in malformed {
        assert!(
            matches!(check::<v1::Prompt>(bytes), Err(Refusal::Malformed(_))),
            "{bytes:02x?}: {:?}",
            check::<v1::Prompt>(bytes)
        );
    }
    // An unknown field (of a later version) is ignored, however often it comes.
    let unknown = field(999, b"new").repeat(100_000);
    check::<v1::Prompt>(&unknown).expect("unknown fields are ignored");
}

/// Most bytes of a decoded prompt beside its texts.
fn footprint(chunk: &v1::PromptChunk) -> usize {
    let texts = |prompt: &v1::Prompt| {
        let labels: usize =
            prompt.labels.iter().map(|(key, value)| key.len() + value.len() + 128).sum();
        prompt.text.len() + prompt.negative.len() + prompt.custom_id.len() + labels
    };
    chunk.prompts.iter().map(|prompt| size_of::<v1::Prompt>() + texts(prompt)).sum()
}

fn prompt() -> impl Strategy<Value = v1::Prompt> {
    let labels = collection::btree_map(".{0,8}", ".{0,8}", 0..=16);
    (".{0,20}", ".{0,4}", any::<u32>(), option::of(any::<u64>()), labels).prop_map(
        |(text, negative, images, seed, labels)| v1::Prompt {
            text,
            negative,
            images,
            seed,
            labels,
            ..Default::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_an_encoder_writes_within_the_limits_is_accepted(
        prompts in collection::vec(prompt(), 0..30),
        timesteps in collection::vec(0_u32..1000, 0..1000),
    ) {
        let stage = v1::StageSettings { timesteps, eta: Some(0.5), ..Default::default() };
        let settings = v1::Settings { stages: vec![stage; 3], size: 1024, ..Default::default() };
        let deadline = Some(prost_types::Timestamp { seconds: -1, nanos: 5 });
        let spec = v1::JobSpec { settings: Some(settings), deadline, ..Default::default() };
        let request = v1::SubmitJobRequest { spec: Some(spec), prompts };
        prop_assert_eq!(check::<v1::SubmitJobRequest>(&request.encode_to_vec()), Ok(()));
    }

    #[test]
    fn what_is_accepted_decodes_within_bounds(
        pieces in collection::vec((prop_oneof![Just(0x0a_u8), Just(0x4a), any::<u8>()], 0_u8..6, any::<u8>()), 0..400),
    ) {
        let bytes: Vec<u8> = pieces.iter().flat_map(|(key, length, fill)| {
            [&[*key, *length][..], &vec![*fill; usize::from(*length)]].concat()
        }).collect();
        if check::<v1::PromptChunk>(&bytes).is_ok() && let Ok(chunk) = v1::PromptChunk::decode(bytes.as_slice()) {
            prop_assert!(chunk.prompts.len() <= 12_000);
            let most = 2 * MAX_ELEMENTS as usize * size_of::<v1::Prompt>() + bytes.len();
            prop_assert!(footprint(&chunk) <= most.min(bytes.len() * 200 + 1));
        }
    }

    #[test]
    fn no_bytes_make_the_walk_fail_otherwise_than_by_refusing(bytes in collection::vec(any::<u8>(), 0..300)) {
        let walked = check::<v1::SubmitJobRequest>(&bytes).is_ok();
        // Stricter than the decoder, except for the encoding of texts, which the decoder checks.
        if v1::SubmitJobRequest::decode(bytes.as_slice()).is_err() && walked {
            let lossy = v1::SubmitJobRequest::decode(bytes.as_slice()).expect_err("refused").to_string();
            prop_assert!(lossy.contains("UTF-8"), "{}", lossy);
        }
    }
}
