use super::*;

fn refused(url: &str) -> String {
    let error = ArtifactStore::open(url, &Options::default()).expect_err(url);
    assert_eq!(error.field.as_deref(), Some(FIELD));
    error.message
}

#[tokio::test]
async fn folders_clouds_and_memory_open_by_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b");
    let url = Url::from_file_path(&path).unwrap();
    for text in [path.to_str().unwrap(), url.as_str(), "memory:"] {
        let store = ArtifactStore::open(text, &Options::default()).unwrap();
        store.check().await.unwrap();
    }
    assert!(path.is_dir());
    let keys = |pairs: &[(&str, &str)]| {
        let environment = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Options { environment, ..Options::default() }
    };
    let s3 =
        keys(&[("AWS_ACCESS_KEY_ID", "id-1"), ("AWS_SECRET_ACCESS_KEY", "hush"), ("PATH", "x")]);
    let store = ArtifactStore::open("s3://bucket/farm/a/?region=eu-west-1", &s3).unwrap();
    assert_eq!(store.name(), "s3://bucket/farm/a");
    for text in [format!("{store:?}"), format!("{s3:?}")] {
        assert!(!text.contains("hush") && !text.contains("PATH"), "{text}");
    }
    let gs = keys(&[("GOOGLE_SKIP_SIGNATURE", "true")]);
    assert_eq!(ArtifactStore::open("gs://bucket/p", &gs).unwrap().name(), "gs://bucket/p");
    let az = keys(&[("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaA==")]);
    let store = ArtifactStore::open("az://container/p?account=me", &az).unwrap();
    assert_eq!(store.name(), "az://container/p");
    ArtifactStore::open("az://container/p", &az).expect_err("no account");
}

#[test]
fn the_urls_endpoint_wins_over_the_environments() {
    let environment = [
        ("AWS_ENDPOINT_URL", "https://elsewhere"),
        ("AWS_ENDPOINT_URL_S3", "https://elsewhere"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let environment =
        environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = Options { environment: environment.collect(), ..Options::default() };
    let store = ArtifactStore::open("s3://b?endpoint=http://127.0.0.1:9", &options).unwrap();
    assert_eq!(store.name(), "s3://b at http://127.0.0.1:9");
    assert_eq!(
        ArtifactStore::open("s3://b", &options).unwrap().name(),
        "s3://b at https://elsewhere"
    );
}

#[test]
fn what_is_wrong_with_a_url_is_said_without_repeating_secrets() {
    for (url, part) in [
        ("", "accepted: a folder"),
        ("s3:bucket", "begins with s3: but // is missing"),
        ("GS:/bucket/prefix", "begins with GS: but // is missing"),
        ("file:/tmp/artifacts", "begins with file: but // is missing"),
        ("ftp://host/x", "ftp://; accepted"),
        ("s3:///prefix", "names no bucket"),
        ("file://host/x", "file:///path"),
        ("s3://bucket?colour=red", "accepted: endpoint, region"),
        ("s3://bucket?secret_access_key=hush", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket?sas_token=hush", "environment"),
        ("s3://me:hush@bucket/x", "environment"),
        ("s3://bucket?endpoint=https://me:hush@host", "is not a URL"),
        ("s3://bucket?endpoint=host", "is not a URL"),
        ("s3://bucket?endpoint=http://host", "allow_http=true"),
        ("s3://bucket?conditional_put=hush", "cannot be opened"),
    ] {
        let message = refused(url);
        assert!(message.contains(part), "{url}: {message}");
        assert!(url.contains("conditional") || !message.contains("hush"), "{message}");
    }
}
