//! Pictures, sheets, manifests, uploads and links.

use darkroom_tests::eventually_async;
use serde_json::json;

use super::{ended, kept, open, submit};

#[tokio::test]
async fn pictures_and_manifests_have_tags_and_ranges() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, http) = open(folder.path());
    let id = submit(&http, "a red circle", 2).await;
    let job = ended(&http, &id).await;
    let picture = format!("/api/v1/jobs/{id}/images/0/picture");
    for (path, media, sha256) in [
        (picture.clone(), "image/png", farm.images(&id)[0]["sha256"].clone()),
        (
            format!("/api/v1/jobs/{id}/manifest"),
            "application/jsonl",
            job["manifest_sha256"].clone(),
        ),
    ] {
        let whole = http.get(&path).await;
        assert_eq!((whole.status.as_u16(), whole.header("content-type")), (200, media));
        let tag = whole.header("etag").to_owned();
        assert_eq!(tag, format!("\"{}\"", sha256.as_str().expect("a hash")));
        let known = http.clone().with("if-none-match", &tag).get(&path).await;
        assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
        let part = http.clone().with("range", "bytes=5-24").with("if-range", &tag).get(&path).await;
        assert_eq!((part.status.as_u16(), &part.body[..]), (206, &whole.body[5..25]));
        let expected = format!("bytes 5-24/{}", whole.body.len());
        assert_eq!(part.header("content-range"), expected);
        let other = http.clone().with("range", "bytes=5-24").with("if-range", "\"x\"");
        assert_eq!(other.get(&path).await.body, whole.body);
        let beyond = http.clone().with("range", "bytes=99999999-").get(&path).await;
        assert_eq!(beyond.status, 416);
        let head = http.send("HEAD", &path, "").await;
        assert_eq!(head.header("content-length"), whole.body.len().to_string());
        assert!(head.body.is_empty());
        let ranged = http.clone().with("range", "bytes=5-24").send("HEAD", &path, "").await;
        assert_eq!(ranged.status, 200, "a range is for GET alone");
        assert_eq!(ranged.header("content-length"), whole.body.len().to_string());
        assert_eq!(whole.header("x-content-type-options"), "nosniff");
        assert_eq!(whole.header("cross-origin-resource-policy"), "same-origin");
        assert!(whole.header("content-security-policy").ends_with("; sandbox"), "it runs nothing");
    }
    let small = http.get(&format!("{picture}?stage=base&max_edge=16")).await;
    assert_eq!(small.header("content-type"), "image/png");
    assert!(small.header("content-disposition").starts_with("inline; filename=\""));
    let sha256 = farm.images(&id)[0]["sha256"].as_str().expect("a hash").to_owned();
    let cached = async |version: &str| {
        http.get(&format!("{picture}?version={version}")).await.header("cache-control").to_owned()
    };
    assert!(cached(&sha256).await.contains("immutable"));
    assert!(!cached(&sha256[1..]).await.contains("immutable"), "not the file that is meant");
    let saved = http.get(&format!("{picture}?download=true")).await;
    assert!(saved.header("content-disposition").starts_with("attachment; filename=\""));
    let sheet = http.get(&format!("/api/v1/jobs/{id}/sheet?count=2&tile=16")).await;
    let about: serde_json::Value =
        serde_json::from_str(sheet.header("darkroom-sheet")).expect("JSON");
    assert_eq!((&about["columns"], &about["tiles"]), (&json!(2), &json!({"filled": 2})));
    let missing = http.get(&format!("/api/v1/jobs/{id}/images/2/picture")).await;
    assert_eq!(missing.problem().0, 404);
}

#[tokio::test]
async fn answers_in_json_are_compressed_and_tagged_and_pictures_are_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let id = submit(&http, "a red circle", 1).await;
    ended(&http, &id).await;
    let asks = http.clone().with("accept-encoding", "gzip");
    let path = format!("/api/v1/jobs/{id}");
    let packed = asks.get(&path).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut text)
        .expect("gzip");
    assert!(text.contains(&id), "{text}");
    let known = http.clone().with("if-none-match", packed.header("etag")).get(&path).await;
    assert_eq!(known.status, 304, "{known:?}");
    assert!(packed.header("etag").starts_with("W/"), "its bytes are others");
    // A file with ranges is never compressed: a range is of the file as it is.
    let line = "x".repeat(4_000);
    let long = json!({"spec": {"name": line[..200]}, "prompts": [{"text": line}]});
    let long = http.post("/api/v1/jobs", &long).await.json()["job"]["id"].clone();
    let long = long.as_str().expect("an id");
    ended(&http, long).await;
    for file in [format!("{path}/images/0/picture"), format!("/api/v1/jobs/{long}/manifest")] {
        let whole = asks.get(&file).await;
        assert_eq!(whole.header("content-encoding"), "", "{file}");
        assert!(whole.body.len() > 2_000 || file.ends_with("picture"));
        let rest = asks.clone().with("range", "bytes=100-").with("if-range", whole.header("etag"));
        assert_eq!(rest.get(&file).await.body, whole.body[100..], "{file}");
    }
}

#[tokio::test]
async fn a_picture_is_uploaded_as_it_is_and_named_by_its_hash() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let first = submit(&http, "a red circle", 1).await;
    ended(&http, &first).await;
    let picture = http.get(&format!("/api/v1/jobs/{first}/images/0/picture")).await.body;
    let png = http.clone().with("content-type", "image/png");
    let stored = png.send("POST", "/api/v1/inputs", picture.clone()).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    assert_eq!(stored.json()["width"], 64);
    let body = json!({
        "spec": {"settings": {"size": 64, "start": "picture"}},
        "prompts": [{"text": "a blue square", "image": stored.json()["sha256"]}],
    });
    let accepted = http.post("/api/v1/jobs", &body).await;
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let other = http.clone().with("content-type", "text/html");
    let refused = other.send("POST", "/api/v1/inputs", picture).await.problem();
    assert_eq!((refused.0, refused.1.as_str()), (415, "MEDIA_TYPE"));
    let broken = png.send("POST", "/api/v1/inputs", "no picture").await.problem();
    assert_eq!(broken.0, 400, "{broken:?}");
}

#[tokio::test]
async fn a_link_shows_one_picture_to_whoever_has_it() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, http, _) = kept(folder.path());
    let id = submit(&http, "a red circle", 2).await;
    ended(&http, &id).await;
    let made = http.post(&format!("/api/v1/jobs/{id}/images/1/links"), &json!({})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let url = made.json()["url"].as_str().expect("a link").to_owned();
    let path = url.strip_prefix(&format!("http://{}", farm.address)).expect("the farm's own");
    let nobody = darkroom_tests::http::Http::new(&farm.address);
    let shown = nobody.get(path).await;
    let own = http.get(&format!("/api/v1/jobs/{id}/images/1/picture")).await;
    assert_eq!((shown.status.as_u16(), &shown.body), (200, &own.body));
    assert_eq!(made.json()["sha256"], own.header("etag").trim_matches('"'));
    assert_eq!(shown.header("x-content-type-options"), "nosniff");
    assert_eq!(shown.header("cross-origin-resource-policy"), "cross-origin", "on any page");
    // Neither another picture, nor another method, nor a changed or cut link.
    let other = http.post(&format!("/api/v1/jobs/{id}/images/0/links"), &json!({})).await.json();
    let other = other["url"].as_str().expect("a link").to_owned();
    let other = other.split_once(&farm.address).expect("the farm's").1;
    assert_eq!(nobody.get(other).await.status, 200);
    let (token, seal) = path.rsplit_once('.').expect("a seal");
    let (others_token, others_seal) = other.rsplit_once('.').expect("a seal");
    let flipped = token.replacen("ey", "ez", 1);
    for wrong in [
        format!("{others_token}.{seal}"),
        format!("{token}.{others_seal}"),
        format!("{flipped}.{seal}"),
        token.to_owned(),
        format!("{token}.{seal}A"),
    ] {
        assert_eq!(nobody.get(&wrong).await.problem().0, 404, "{wrong}");
    }
    assert_eq!(nobody.send("DELETE", path, "").await.problem().0, 405);
    let short = json!({"link_seconds": 1});
    let short = http.post(&format!("/api/v1/jobs/{id}/images/1/links"), &short).await.json();
    let short = short["url"].as_str().expect("a link").to_owned();
    let short = short.split_once(&farm.address).expect("the farm's").1.to_owned();
    let over = eventually_async("the link ends", async || {
        let asked = nobody.get(&short).await;
        (asked.status != 200).then_some(asked)
    });
    assert_eq!(over.await.problem().1, "LINK_ENDED");
    // A picture of a job that is deleted is gone.
    http.send("DELETE", &format!("/api/v1/jobs/{id}"), "").await;
    assert_eq!(nobody.get(path).await.problem().0, 404);
}
