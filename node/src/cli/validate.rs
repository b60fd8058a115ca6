//! `ratelimiter validate DIR`: everything that is wrong with a folder of policies.

use std::path::Path;

use quorate_crds::read_directory;

use super::{Failure, count};

pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    match read_directory(dir) {
        Ok(policies) => {
            println!("{}: {}, nothing wrong", dir.display(), count(policies.len(), "policy", "policies"));
            Ok(())
        }
        Err(errors) => {
            for error in &errors {
                eprintln!("{error}");
            }
            Err(Failure::Failed(format!("{}: {}", dir.display(), count(errors.len(), "error", "errors"))))
        }
    }
}
