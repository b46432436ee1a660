//! A chunk of prompts becomes rows: texts, prompts, images.
//!
//! Texts are locked (shared) before their state is read, so that the state cannot change before the
//! commit. A transaction that changes a text's state afterwards sees the prompts of this chunk.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use darkroom_core::{digest::Digest, image_state::ImageState, text_state::TextState};

use super::{
    Error, Tx,
    both::{
        history::log_reused,
        inputs::refuse_removed,
        mix::{self, At},
        notes::note_pictures,
        variants,
    },
    notes::{Uses, note_received},
    progress::LockedJobs,
    rows::{column, column32, digest, parse, seed_column},
    texts,
};
use crate::store::{
    custom_id,
    records::{NewPrompt, PreparedText},
    variants::Chunk,
};

/// A text's row, which cannot change until the transaction ends.
#[derive(Clone, Copy)]
struct Text {
    id: i64,
    encoded: bool,
    /// There are notes on it.
    noted: bool,
}

type Texts = HashMap<Digest, Text>;

/// Inserts a chunk of a job's prompts; `None` when the job is gone.
pub(super) async fn insert_prompts(
    tx: &mut Tx,
    job: i64,
    encoder: Digest,
    prompts: &[NewPrompt],
) -> Result<Option<()>, Error> {
    let (texts, revived) = ensure_texts(tx, encoder, prompts).await?;
    // This happens before the job is locked, so that concurrent chunks wait for each other as
    // little as possible.
    let (new_texts, encoded) = insert_job_texts(tx, job, &texts).await?;
    log_reused(tx, encoder, encoded).await?;
    insert_prompt_rows(tx, job, &texts, prompts).await?;
    refuse_removed(tx, prompts).await?;
    let chunk = Chunk::of(prompts);
    variants::insert(tx, job, &chunk).await?;
    note_received(tx, job, &noted_uses(&texts, prompts)?).await?;
    note_pictures(tx, job, prompts).await?;
    let waiting = texts::jobs_of(tx, &revived).await?;
    let mut jobs = LockedJobs::lock(tx, waiting.iter().map(|(job, _)| *job).chain([job])).await?;
    texts::want_in_jobs(&mut jobs, &waiting);
    let Some(locked) = jobs.get_mut(job) else { return Ok(None) };
    let version = locked.next_version();
    let at = At { stages: locked.stages(), version: locked.version() };
    locked.lengthen(chunk.longest().map_or(0, |longest| longest.stages.len()));
    mix::count(tx, job, at, &chunk).await?;
    let ready = insert_images(tx, &mut jobs, (job, version), &texts, prompts).await?;
    let images = prompts.iter().map(|prompt| i64::from(prompt.images)).sum();
    if let Some(job) = jobs.get_mut(job) {
        job.receive(images, ready, column(new_texts), column(encoded));
    }
    jobs.save(tx).await?;
    Ok(Some(()))
}

/// Makes sure that every text has a row, and locks those that others know. Texts that were given up
/// are wanted again; their ids come second.
async fn ensure_texts(
    tx: &mut Tx,
    encoder: Digest,
    prompts: &[NewPrompt],
) -> Result<(Texts, Vec<i64>), Error> {
    // Negative texts first: they are shared by many prompts, so they should be encoded first. Else
    // by digest, so that those who insert the same texts do it in one order.
    let mut seen = BTreeSet::new();
    let negatives = prompts.iter().filter_map(|prompt| prompt.negative_embedding.as_ref());
    let mut wanted: Vec<&PreparedText> =
        negatives.filter(|text| seen.insert(text.digest)).collect();
    let count = wanted.len();
    let positives = prompts.iter().flat_map(NewPrompt::texts);
    wanted.extend(positives.filter(|text| seen.insert(text.digest)));
    let (negatives, positives) = wanted.split_at_mut(count);
    negatives.sort_unstable_by_key(|text| text.digest);
    positives.sort_unstable_by_key(|text| text.digest);
    let inserted: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "INSERT INTO embeddings (digest, encoder, prepared)
         SELECT t.digest, $3, t.prepared FROM unnest($1::bytea[], $2::text[]) AS t (digest, prepared)
         ON CONFLICT (digest) DO NOTHING
         RETURNING id, digest",
    )
    .bind(wanted.iter().map(|text| text.digest.0).collect::<Vec<_>>())
    .bind(wanted.iter().map(|text| text.prepared.as_str()).collect::<Vec<_>>())
    .bind(encoder.0)
    .fetch_all(&mut **tx)
    .await?;
    let mut texts = Texts::with_capacity(wanted.len());
    for (id, bytes) in inserted {
        texts.insert(digest(&bytes)?, Text { id, encoded: false, noted: false });
    }
    let known: Vec<_> = wanted
        .iter()
        .filter(|text| !texts.contains_key(&text.digest))
        .map(|text| text.digest.0)
        .collect();
    if known.is_empty() {
        return Ok((texts, Vec::new()));
    }
    let known: Vec<(i64, Vec<u8>, String, bool)> = sqlx::query_as(
        "SELECT id, digest, state, notes <> '{}' FROM embeddings WHERE digest = ANY ($1) ORDER BY id FOR SHARE",
    )
    .bind(known)
    .fetch_all(&mut **tx)
    .await?;
    let mut dead = Vec::new();
    for (id, bytes, state, noted) in known {
        let state: TextState = parse(&state)?;
        if state == TextState::Dead {
            dead.push(id);
        }
        texts.insert(digest(&bytes)?, Text { id, encoded: state == TextState::Done, noted });
    }
    let revived = texts::revive(tx, &dead).await?;
    Ok((texts, revived))
}

/// Adds the texts that are new to the job. Returns how many, and how many of them are encoded.
async fn insert_job_texts(tx: &mut Tx, job: i64, texts: &Texts) -> Result<(usize, usize), Error> {
    let by_id: BTreeMap<i64, bool> = texts.values().map(|text| (text.id, text.encoded)).collect();
    let ids: Vec<i64> = by_id.keys().copied().collect();
    let inserted: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO job_texts (job, embedding) SELECT $1, t.id FROM unnest($2::bigint[]) AS t (id)
         ON CONFLICT (job, embedding) DO NOTHING
         RETURNING embedding",
    )
    .bind(job)
    .bind(ids)
    .fetch_all(&mut **tx)
    .await?;
    let encoded = inserted.iter().filter(|id| by_id.get(id) == Some(&true)).count();
    Ok((inserted.len(), encoded))
}

/// The chunk's uses of texts that are encoded and have notes. The notes of other texts are added
/// when they are encoded.
fn noted_uses(texts: &Texts, prompts: &[NewPrompt]) -> Result<Uses, Error> {
    let mut uses = Uses::default();
    if !texts.values().any(|text| text.encoded && text.noted) {
        return Ok(uses);
    }
    for prompt in prompts {
        let (positive, negative, style) = texts_of(texts, prompt)?;
        for (role, text) in (0_i16..).zip([Some(positive), negative, style]) {
            if let Some(text) = text.filter(|text| text.encoded && text.noted) {
                uses.add((text.id, role), prompt.first_index, prompt.naming.line, prompt.images);
            }
        }
    }
    Ok(uses)
}

/// A prompt's text, negative text and style.
fn texts_of(
    texts: &Texts,
    prompt: &NewPrompt,
) -> Result<(Text, Option<Text>, Option<Text>), Error> {
    let text = |prepared: &PreparedText| {
        let text = texts.get(&prepared.digest).copied();
        text.ok_or_else(|| Error::Corrupt(format!("text {} has no row", prepared.digest)))
    };
    let optional = |prepared: &Option<PreparedText>| prepared.as_ref().map(text).transpose();
    Ok((
        text(&prompt.text_embedding)?,
        optional(&prompt.negative_embedding)?,
        optional(&prompt.style_embedding)?,
    ))
}

async fn insert_prompt_rows(
    tx: &mut Tx,
    job: i64,
    texts: &Texts,
    prompts: &[NewPrompt],
) -> Result<(), Error> {
    let (mut embeddings, mut negatives) = (Vec::new(), Vec::new());
    let (mut styles, mut extras, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for prompt in prompts {
        let (positive, negative, style) = texts_of(texts, prompt)?;
        embeddings.push(positive.id);
        negatives.push(negative.map(|text| text.id));
        styles.push(style.map(|text| text.id));
        extras.push(prompt.extras_json()?);
        labels.push(prompt.labels_json()?);
    }
    let ids: Vec<_> = prompts.iter().map(|prompt| prompt.naming.custom_id.as_deref()).collect();
    let inserted = sqlx::query(
        "INSERT INTO prompts (job, position, text, negative, first_index, images, first_seed, text_embedding,
                              negative_embedding, style_embedding, extras, custom_id, labels, line, variant)
         SELECT $1, p.*
         FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::int[], $7::bigint[], $8::bigint[],
                     $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::int[]) AS p
         ON CONFLICT (job, custom_id) WHERE custom_id IS NOT NULL DO NOTHING",
    )
    .bind(job)
    .bind(prompts.iter().map(|prompt| column(prompt.position)).collect::<Vec<_>>())
    .bind(prompts.iter().map(|prompt| prompt.text.as_str()).collect::<Vec<_>>())
    .bind(prompts.iter().map(|prompt| prompt.negative.as_str()).collect::<Vec<_>>())
    .bind(prompts.iter().map(|prompt| column(prompt.first_index)).collect::<Vec<_>>())
    .bind(prompts.iter().map(|prompt| column32(prompt.images)).collect::<Vec<_>>())
    .bind(prompts.iter().map(|prompt| seed_column(prompt.first_seed)).collect::<Vec<_>>())
    .bind(embeddings)
    .bind(negatives)
    .bind(styles)
    .bind(extras)
    .bind(&ids)
    .bind(labels)
    .bind(prompts.iter().map(|prompt| prompt.naming.line.map(column)).collect::<Vec<_>>())
    .bind(prompts.iter().map(variant_column).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    if inserted.rows_affected() == prompts.len() as u64 {
        return Ok(());
    }
    let found = sqlx::query_as(
        "SELECT p.custom_id, p.position, p.line FROM unnest($2::text[]) AS wanted (id)
         CROSS JOIN LATERAL (SELECT * FROM prompts AS p WHERE p.job = $1 AND p.custom_id = wanted.id OFFSET 0) AS p",
    );
    let found = found.bind(job).bind(ids).fetch_all(&mut **tx).await?;
    Err(custom_id::taken_of(prompts, found))
}

/// Inserts images; returns how many are ready.
async fn insert_images(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    (job, version): (i64, i64),
    texts: &Texts,
    prompts: &[NewPrompt],
) -> Result<i64, Error> {
    let (mut images, mut of_prompts, mut states) = (Vec::new(), Vec::new(), Vec::new());
    let mut variants = Vec::new();
    let mut ready = 0;
    for prompt in prompts {
        let (positive, negative, style) = texts_of(texts, prompt)?;
        let encoded =
            positive.encoded && negative.into_iter().chain(style).all(|text| text.encoded);
        let state = if encoded { ImageState::Ready } else { ImageState::Waiting };
        for index in prompt.first_index..prompt.first_index + u64::from(prompt.images) {
            images.push(column(index));
            of_prompts.push(column(prompt.position));
            states.push(state.name());
            variants.push(variant_column(prompt));
            jobs.inserted(job, column(index), state);
            ready += i64::from(encoded);
        }
    }
    sqlx::query(
        "INSERT INTO images (job, version, idx, prompt, state, variant)
         SELECT $1, $2, i.idx, i.prompt, i.state::image_state, i.variant
         FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::int[]) AS i (idx, prompt, state, variant)",
    )
    .bind(job)
    .bind(version)
    .bind(images)
    .bind(of_prompts)
    .bind(states)
    .bind(variants)
    .execute(&mut **tx)
    .await?;
    Ok(ready)
}

/// The number of a prompt's own settings, if it has some.
fn variant_column(prompt: &NewPrompt) -> Option<i32> {
    prompt.variant.as_ref().map(|variant| column32(variant.number))
}
