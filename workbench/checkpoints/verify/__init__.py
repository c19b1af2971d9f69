"""Is this checkpoint, as it is loaded here, the model that transformers would run? Compared layer by layer."""

from workbench.checkpoints.verify.certificate import Certificate, certificate
from workbench.checkpoints.verify.walk import verify

__all__ = ["verify", "certificate", "Certificate"]
