//! An S3 server over HTTP.
