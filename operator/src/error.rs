//! What goes wrong between the operator and the API server, and how it is counted.

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be asked.
    #[error("{what}: {source}")]
    Api {
        /// What was tried, with the object's name.
        what: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// It took longer than anything should.
    #[error("{what} took longer than {seconds} s")]
    TooSlow {
        /// What took too long.
        what: String,
        /// The bound.
        seconds: u64,
    },
}

impl Error {
    /// For `map_err`: names what was tried.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { what: what.into(), source }
    }

    /// One word for the label `reason` of `quorate_operator_errors_total`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooSlow { .. } => "TooSlow",
            Self::Api { source: kube::Error::Api(status), .. } => match status.code {
                401 | 403 => "Forbidden",
                404 => "NotFound",
                409 => "Conflict",
                422 => "Invalid",
                429 => "TooManyRequests",
                _ => "ApiServer",
            },
            Self::Api { .. } => "Unreachable",
        }
    }

    /// The API server will have none of it: trying again helps once somebody changes something.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        // Forbidden by rights, quotas or webhooks; invalid; too large.
        matches!(self, Self::Api { source: kube::Error::Api(status), .. }
            if matches!(status.code, 400 | 403 | 413 | 422) && !is_new_definition(status))
    }

    /// What is told of it in a status, where room is short: the API server's own words.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Api { what, source: kube::Error::Api(status) } => format!("{what}: {}", status.message),
            other => other.to_string(),
        }
    }

    /// The object's namespace is being deleted, so nothing new may be put into it and what was there goes.
    #[must_use]
    pub fn is_end_of_namespace(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_end_of_namespace(source))
    }
}

/// For some seconds after the definitions were installed the API server's own admission does not know them, and an owner of
/// such a kind is forbidden (Kubernetes, `plugin/pkg/admission/gc/gc_admission.go`). Its words are all there is to tell it by.
fn is_new_definition(status: &kube::core::Status) -> bool {
    status.code == 403 && status.message.contains("cannot find RESTMapping")
}

/// As [`Error::is_end_of_namespace`].
#[must_use]
pub fn is_end_of_namespace(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    // Forbidden with this cause while it is going; NotFound once it is gone.
    let details = status.details.as_ref();
    let terminating = details.is_some_and(|d| d.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"));
    let gone = details.is_some_and(|d| d.kind == "namespaces");
    (status.code == 403 && terminating) || (status.code == 404 && gone)
}
