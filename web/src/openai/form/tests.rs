use serde_json::json;

use super::*;

#[test]
fn a_picture_is_named_by_a_hash_and_never_by_a_path_or_an_address() {
    let digits = "AB".repeat(32);
    assert_eq!(hash("image", json!(digits)), Ok("ab".repeat(32)));
    assert_eq!(hash("image", json!([digits])), Ok("ab".repeat(32)));
    for wrong in [
        json!("/etc/passwd"),
        json!("https://example.com/a.png"),
        json!("data:image/png;base64,aaaa"),
        json!({"image_url": "https://example.com/a.png"}),
        json!("zz".repeat(32)),
        json!(7),
    ] {
        let error = hash("image", wrong.clone()).expect_err("no hash");
        assert!(error.message.starts_with(&format!("image is {}", told(&wrong.to_string()))));
        assert!(error.message.contains("accepted: a file in a multipart/form-data body"));
    }
    let two = hash("image", json!([digits, digits])).expect_err("two");
    assert!(two.message.starts_with("image is given more than once"), "{two}");
    assert_eq!(hash("image", json!([])), Err(no_picture()));
}

async fn parts(body: Vec<Result<Bytes, std::io::Error>>) -> Result<Vec<String>, String> {
    let mut form = Multipart::with_constraints(stream::iter(body), "b", limits());
    let mut texts = Vec::new();
    let message = |refusal: Refusal| refusal.into_error().message;
    while let Some(part) = form.next_field().await.map_err(|error| message(unread(&error)))? {
        texts.push(text(part).await.map_err(message)?);
    }
    Ok(texts)
}

fn part(name: &str, text: &[u8]) -> Bytes {
    let head = format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
    [head.as_bytes(), text, b"\r\n"].concat().into()
}

#[tokio::test]
async fn a_form_is_read_within_limits() {
    let end = || Ok(Bytes::from_static(b"--b--\r\n"));
    let good = vec![Ok(part("prompt", "ein Füchslein".as_bytes())), end()];
    assert_eq!(parts(good).await, Ok(vec!["ein Füchslein".to_owned()]));
    let long = vec![Ok(part("prompt", &vec![b'x'; 65 << 10])), end()];
    let said = "prompt has more than 64 KiB; accepted: at most 64 KiB";
    assert_eq!(parts(long).await, Err(said.to_owned()));
    let odd = vec![Ok(part("prompt", b"\xff")), end()];
    assert_eq!(parts(odd).await, Err("prompt is not UTF-8; send it as UTF-8 text".to_owned()));
    let failed = vec![Ok(part("prompt", b"a")), Err(std::io::Error::other("reset"))];
    let failed = parts(failed).await.expect_err("an error");
    assert!(failed.contains("broke off"), "{failed}");
    let picture = vec![Ok(part("image[]", &vec![b'x'; 65 << 10])), end()];
    assert!(parts(picture).await.is_ok(), "a picture may be larger");
}

#[tokio::test]
async fn a_form_that_is_not_one_is_told_what_is_wrong_with_it() {
    let said = |text: &'static str| async move {
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(text.as_bytes()))]);
        let mut form = Multipart::with_constraints(body, "b", limits());
        loop {
            let refusal = match form.next_field().await {
                Ok(None) => return (String::new(), String::new()),
                Ok(Some(part)) => super::text(part).await.err(),
                Err(error) => Some(unread(&error)),
            };
            if let Some(error) = refusal.map(Refusal::into_error) {
                return (error.reason, error.message);
            }
        }
    };
    let endless = "--b\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\na\r\n";
    let expected =
        "prompt has no closing boundary; send a complete multipart/form-data body (RFC 7578)";
    assert_eq!(said(endless).await, ("INVALID_FORM".to_owned(), expected.to_owned()));
    let malformed = "the form's boundary differs from the one in content-type, its closing \
                     boundary is missing, or a part has no headers; send multipart/form-data as in RFC 7578";
    for form in ["--b\r\n\r\na\r\n--b--\r\n", "--c\r\n\r\na\r\n--c--\r\n", "--b\r\n", ""] {
        let expected = ("INVALID_FORM".to_owned(), malformed.to_owned());
        assert_eq!(said(form).await, expected, "{form:?}");
    }
}
