//! A certificate authority and its certificates, valid or not, for servers that speak TLS. OpenSSL
//! makes them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::process::find_program;

/// The period in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Now,
    /// In the year 2020.
    Over,
    /// In the year 2120.
    ToCome,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// An authority. Dropping it removes its files.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    openssl: PathBuf,
}

impl Authority {
    /// Makes a new authority. All of them have the same name.
    ///
    /// # Panics
    /// When OpenSSL is not installed, or fails.
    #[must_use]
    pub fn new() -> Self {
        Self::named("authority")
    }

    /// Makes a new authority with this common name, without spaces.
    ///
    /// # Panics
    /// When OpenSSL is not installed, or fails.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix("darkroom-authority-").tempdir().expect("a folder");
        let openssl =
            find_program(&["openssl"], &[], "openssl").unwrap_or_else(|error| panic!("{error}"));
        let authority = Self { folder, openssl };
        let write =
            |name: &str, text: &str| fs::write(authority.path(name), text).expect("written");
        write("index", "");
        let settings = [
            "[ca]",
            "default_ca = own",
            "[own]",
            "database = index",
            "new_certs_dir = .",
            "rand_serial = yes",
            "unique_subject = no",
            "default_md = sha256",
            "policy = any",
            "[any]",
            "organizationName = optional",
            "commonName = supplied",
            "[req]",
            "distinguished_name = name",
            "[name]",
            "[authority]",
            "basicConstraints = critical, CA:TRUE",
            "keyUsage = critical, keyCertSign, cRLSign",
        ];
        write("settings", &settings.join("\n"));
        authority.run(&format!(
            "req -x509 {KEY} -keyout ca.key -out ca.pem -days 2 -subj /CN={name} -config settings -extensions authority"
        ));
        authority
    }

    /// The file with its certificate, for the settings of programs that trust it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Its own certificate and key, which a server should not use.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn own(&self) -> Certificate {
        let read = |name: &str| fs::read_to_string(self.path(name)).expect("OpenSSL wrote it");
        Certificate { certificate: read("ca.pem"), key: read("ca.key") }
    }

    /// Signs a certificate for these names (`DNS:localhost,IP:127.0.0.1`).
    ///
    /// # Panics
    /// When OpenSSL fails.
    #[must_use]
    pub fn sign(&self, names: &str, validity: Validity) -> Certificate {
        let extensions = format!(
            "subjectAltName = {names}\nbasicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\n"
        );
        self.make(&extensions, "/CN=server", validity)
    }

    /// Signs a certificate of a client with this subject (`/O=Studio/CN=worker-1`, no spaces).
    ///
    /// # Panics
    /// When OpenSSL fails.
    #[must_use]
    pub fn sign_client(&self, subject: &str, validity: Validity) -> Certificate {
        let extensions = "basicConstraints = CA:FALSE\nextendedKeyUsage = clientAuth\n";
        self.make(extensions, subject, validity)
    }

    fn make(&self, extensions: &str, subject: &str, validity: Validity) -> Certificate {
        fs::write(self.path("extensions"), extensions).expect("written");
        self.run(&format!(
            "req -new {KEY} -keyout server.key -out server.csr -subj {subject} -config settings"
        ));
        let dates = match validity {
            Validity::Now => "-days 2",
            Validity::Over => "-startdate 20200101000000Z -enddate 20201231000000Z",
            Validity::ToCome => "-startdate 21200101000000Z -enddate 21201231000000Z",
        };
        self.run(&format!(
            "ca -batch -notext -config settings -cert ca.pem -keyfile ca.key -in server.csr -out server.pem \
             -extfile extensions {dates}"
        ));
        let read = |name: &str| fs::read_to_string(self.path(name)).expect("OpenSSL wrote it");
        Certificate { certificate: read("server.pem"), key: read("server.key") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &str) {
        let mut command = Command::new(&self.openssl);
        command.args(arguments.split_whitespace()).current_dir::<&Path>(self.folder.path());
        let done = command.output().expect("openssl runs");
        assert!(
            done.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// A new key without a password.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
