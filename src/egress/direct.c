// SPDX-License-Identifier: MIT
#include "egress/egress.h"

const char *const ps_always_direct[PS_ALWAYS_DIRECT] = {
	"0.0.0.0/32", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
	"::/128",     "::1/128",     "fe80::/10",      "ff00::/8",
};
