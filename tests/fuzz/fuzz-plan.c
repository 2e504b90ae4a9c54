// SPDX-License-Identifier: MIT
/* A plan file is what an operator, or somebody in his name, wrote: any bytes.  What parses must also
 * deal, read back, compare and hash. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool good)
{
	if (!good)
		abort();
}

static void check_plan(const char *text, size_t len, struct ps_plan *plan)
{
	ps_auto_mem char *dealt = NULL, *diff = NULL;
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *back = NULL;
	size_t n;

	must(ps_plan_deal(plan, &n) == 0);
	must(ps_plan_diff(NULL, plan, &diff) == 0);
	if (ps_plan_deal_text(text, len, plan, &dealt) < 0)
		return; /* slices written so that they cannot be replaced */
	must(ps_plan_parse(dealt, strlen(dealt), "", &diags, &back) == 0);
	must(ps_plan_deal(back, &n) == 0 && n == 0);
}

static void check_findings(const struct ps_diags *diags)
{
	must(diags->n > 0);
	for (size_t i = 0; i < diags->n; i++)
		must(diags->items[i].text[0] && diags->items[i].file[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0}, undealt_diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL, *undealt = NULL;
	const char *text = (const char *)data;
	int r = ps_plan_parse(text, len, "p", &diags, &plan);
	int u = ps_plan_parse_undealt(text, len, "p", &undealt_diags, &undealt);

	must(r == 0 || u < 0 || diags.n > 0);
	if (r < 0)
		check_findings(&diags);
	else
		must(u == 0 && diags.n == 0);
	if (u == 0)
		check_plan(text, len, undealt);
	else
		check_findings(&undealt_diags);
	return 0;
}
