"""The version of freezeflow, as in pyproject.toml; read from here because asking the installed
package's metadata takes longer than freezing a small model."""

VERSION = "0.1.0"
