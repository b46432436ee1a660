//! `s3s-fs` with keys as long as S3's. It uses a key in Base64 as a file name, and a key with two
//! hashes is too long for that. Here every hash is stored in a shorter form, and expanded again in
//! listings.

use std::{
    io,
    path::{Path, PathBuf},
};

use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
        GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput,
        HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input,
        ListObjectsV2Output, Object, PutObjectInput, PutObjectOutput, UploadPartInput,
        UploadPartOutput,
    },
};
use s3s_fs::FileSystem;

/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;
/// Marks a shortened part of a key. No key of ours contains it.
const MARK: char = '~';

/// The file system with shortened keys, and the folder that it serves.
#[derive(Debug)]
pub(super) struct ShortKeys(pub(super) FileSystem, pub(super) PathBuf);

impl ShortKeys {
    /// The keys under a prefix that ends in `/`, if they are one short page. `s3s-fs` walks the
    /// whole bucket for that, and a farm asks for it for every task.
    fn page(&self, input: &ListObjectsV2Input) -> Option<Vec<Object>> {
        const MOST: usize = 100;
        let folder = input.prefix.as_deref().filter(|prefix| prefix.ends_with('/'))?;
        let bucket = self.1.join(&input.bucket);
        if !bucket.is_dir() || input.delimiter.is_some() || input.continuation_token.is_some() {
            return None;
        }
        let mut objects = Vec::new();
        under(&bucket.join(folder), folder, &mut objects).ok()?;
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects.retain(|object| object.key > input.start_after);
        let most = input.max_keys.and_then(|most| usize::try_from(most).ok()).unwrap_or(MOST);
        (objects.len() <= most.min(MOST)).then_some(objects)
    }
}

/// Adds the files below `folder`, whose keys begin with `prefix`. Adds none if there is no such
/// folder.
fn under(folder: &Path, prefix: &str, objects: &mut Vec<Object>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            under(&entry.path(), &format!("{key}/"), objects)?;
        } else {
            objects.push(Object {
                key: Some(key),
                last_modified: Some(metadata.modified()?.into()),
                size: i64::try_from(metadata.len()).ok(),
                ..Object::default()
            });
        }
    }
    Ok(())
}

/// The key that the server uses for its file.
pub(super) fn short(key: &str) -> String {
    key.split('/').map(shorten).collect::<Vec<_>>().join("/")
}

fn long(key: &str) -> String {
    key.split('/').map(lengthen).collect::<Vec<_>>().join("/")
}

fn shorten(part: &str) -> String {
    let digest = part.get(..DIGITS).and_then(|digits| hex::decode(digits).ok());
    match digest {
        Some(bytes) => {
            let text = base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes);
            format!("{MARK}{text}{}", &part[DIGITS..])
        }
        None => part.to_owned(),
    }
}

fn lengthen(part: &str) -> String {
    let Some(text) = part.strip_prefix(MARK) else { return part.to_owned() };
    let end = text.find('.').unwrap_or(text.len());
    match base64_simd::URL_SAFE_NO_PAD.decode_to_vec(&text[..end]) {
        Ok(bytes) => format!("{}{}", hex::encode(bytes), &text[end..]),
        Err(_) => part.to_owned(),
    }
}

macro_rules! with_short_keys {
    ($($method:ident($input:ident) -> $output:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for ShortKeys {
            $(
                async fn $method(&self, mut request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    request.input.key = short(&request.input.key);
                    self.0.$method(request).await
                }
            )*

            async fn delete_objects(
                &self,
                mut request: S3Request<DeleteObjectsInput>,
            ) -> S3Result<S3Response<DeleteObjectsOutput>> {
                for object in &mut request.input.delete.objects {
                    object.key = short(&object.key);
                }
                let mut answer = self.0.delete_objects(request).await?;
                for deleted in answer.output.deleted.iter_mut().flatten() {
                    deleted.key = deleted.key.as_deref().map(long);
                }
                Ok(answer)
            }

            async fn list_objects_v2(
                &self,
                mut request: S3Request<ListObjectsV2Input>,
            ) -> S3Result<S3Response<ListObjectsV2Output>> {
                request.input.prefix = request.input.prefix.as_deref().map(short);
                request.input.start_after = request.input.start_after.as_deref().map(short);
                let mut answer = match self.page(&request.input) {
                    Some(objects) => S3Response::new(ListObjectsV2Output {
                        name: Some(request.input.bucket),
                        prefix: request.input.prefix.as_deref().map(long),
                        key_count: i32::try_from(objects.len()).ok(),
                        contents: Some(objects),
                        is_truncated: Some(false),
                        ..ListObjectsV2Output::default()
                    }),
                    None => self.0.list_objects_v2(request).await?,
                };
                for object in answer.output.contents.iter_mut().flatten() {
                    object.key = object.key.as_deref().map(long);
                }
                for prefix in answer.output.common_prefixes.iter_mut().flatten() {
                    prefix.prefix = prefix.prefix.as_deref().map(long);
                }
                Ok(answer)
            }

            async fn head_bucket(
                &self,
                request: S3Request<HeadBucketInput>,
            ) -> S3Result<S3Response<HeadBucketOutput>> {
                self.0.head_bucket(request).await
            }

            async fn get_bucket_location(
                &self,
                request: S3Request<GetBucketLocationInput>,
            ) -> S3Result<S3Response<GetBucketLocationOutput>> {
                self.0.get_bucket_location(request).await
            }
        }
    };
}

with_short_keys! {
    put_object(PutObjectInput) -> PutObjectOutput;
    get_object(GetObjectInput) -> GetObjectOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    upload_part(UploadPartInput) -> UploadPartOutput;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_become_shorter_and_come_back() {
        let digest = "0f".repeat(32);
        for key in [
            format!("cascades/{digest}/files/{digest}.safetensors"),
            "probes/x.y".to_owned(),
            String::new(),
        ] {
            assert_eq!(long(&short(&key)), key);
            assert!(short(&key).len() <= key.len());
        }
    }
}
