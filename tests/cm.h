/* SPDX-License-Identifier: MIT */
/* cmocka with the headers it forgets to include. */
#ifndef PS_TESTS_CM_H
#define PS_TESTS_CM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
