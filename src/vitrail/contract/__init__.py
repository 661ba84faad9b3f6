"""What every backbone promises, as checks that anybody can run on a family of their own."""

from vitrail.contract.checks import CHECKS, Check, CheckResult, Subject, check_subject, find_subject

__all__ = ["CHECKS", "Check", "CheckResult", "Subject", "check_subject", "find_subject"]
