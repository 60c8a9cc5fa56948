"""Every attack there is."""

from __future__ import annotations

import bundle_attacks
import format_attacks
import model_attacks

ATTACKS = (*bundle_attacks.ATTACKS, *model_attacks.ATTACKS, *format_attacks.ATTACKS)
