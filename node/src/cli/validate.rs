//! `ratelimiter validate DIR`: everything that is wrong with a folder of policies.

use std::path::Path;

use quorate_crds::read_directory;

use super::Failure;

pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    match read_directory(dir) {
        Ok(policies) => {
            println!("{}: {} policies, nothing wrong", dir.display(), policies.len());
            Ok(())
        }
        Err(errors) => {
            for error in &errors {
                eprintln!("{error}");
            }
            Err(Failure::Failed(format!("{}: {} errors", dir.display(), errors.len())))
        }
    }
}
