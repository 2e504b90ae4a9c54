// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/own.h"
#include "base/say.h"
#include "store/etcd.h"

static const char default_prefix[] = "/portslice";
static const char default_port[] = "2379";

void ps_etcd_config_clear(struct ps_etcd_config *config)
{
	for (size_t i = 0; i < config->n_endpoints; i++)
		free(config->endpoints[i]);
	free(config->endpoints);
	free(config->prefix);
	free(config->ca);
	free(config->cert);
	free(config->key);
	free(config->user);
	free(config->password_file);
	*config = (struct ps_etcd_config){0};
}

static bool has_port(const char *host)
{
	const char *colon = strrchr(host, ':');

	return colon && !strchr(colon, ']'); /* [2001:db8::1] has colons and no port */
}

static int add_endpoint(struct ps_etcd_config *config, const char *host, bool is_tls)
{
	void *more = reallocarray(config->endpoints, config->n_endpoints + 1, sizeof(char *));
	char *url;

	if (!more)
		return -ENOMEM;
	config->endpoints = more;
	if (asprintf(&url, "http%s://%s%s%s", is_tls ? "s" : "", host, has_port(host) ? "" : ":",
		     has_port(host) ? "" : default_port) < 0)
		return -ENOMEM;
	config->endpoints[config->n_endpoints++] = url;
	return 0;
}

/* hosts is cut at its commas. */
static int parse_hosts(char *hosts, bool is_tls, struct ps_etcd_config *config, char **ret_message)
{
	char *rest = hosts, *host;

	while ((host = strsep(&rest, ","))) {
		int r;

		if (!*host || strpbrk(host, " @?#") || *host == ':')
			return ps_say(ret_message, -EINVAL,
				      "\"%s\" is no end point of etcd: write host:port,"
				      "host:port,...",
				      host);
		r = add_endpoint(config, host, is_tls);
		if (r < 0)
			return r;
	}
	return 0;
}

static char **option_named(struct ps_etcd_config *config, const char *name, bool is_tls)
{
	const struct {
		const char *name;
		char **place;
		bool needs_tls;
	} rows[] = {
		{"ca", &config->ca, true},
		{"cert", &config->cert, true},
		{"key", &config->key, true},
		{"user", &config->user, false},
		{"password-file", &config->password_file, false},
	};

	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		if (strcmp(name, rows[i].name) == 0 && (is_tls || !rows[i].needs_tls))
			return rows[i].place;
	}
	return NULL;
}

static int parse_options(char *options, bool is_tls, struct ps_etcd_config *config,
			 char **ret_message)
{
	char *rest = options, *option;

	while ((option = strsep(&rest, "&"))) {
		char *value = strchr(option, '='), **place = NULL;

		if (value) {
			*value++ = '\0';
			place = option_named(config, option, is_tls);
		}
		if (!place || *place || !*value)
			return ps_say(ret_message, -EINVAL,
				      "option \"%s\" is unknown, empty or given twice: "
				      "etcd: takes user= and password-file=, etcds: also ca=, "
				      "cert= and key=",
				      option);
		*place = strdup(value);
		if (!*place)
			return -ENOMEM;
	}
	return 0;
}

static int check_pairs(const struct ps_etcd_config *config, char **ret_message)
{
	if (!config->user != !config->password_file)
		return ps_say(ret_message, -EINVAL, "user= and password-file= belong together");
	if (!config->cert != !config->key)
		return ps_say(ret_message, -EINVAL, "cert= and key= belong together");
	return 0;
}

static int parse_prefix(const char *path, struct ps_etcd_config *config)
{
	size_t len = strlen(path);

	while (len > 0 && path[len - 1] == '/')
		len--;
	config->prefix = len ? strndup(path, len) : strdup(default_prefix);
	return config->prefix ? 0 : -ENOMEM;
}

int ps_etcd_config_parse(const char *place, bool is_tls, struct ps_etcd_config *ret,
			 char **ret_message)
{
	ps_auto(ps_etcd_config_clear) struct ps_etcd_config config = {0};
	ps_auto_mem char *text = strdup(place), *hosts = NULL;
	char *options, *path;
	int r;

	if (!text)
		return -ENOMEM;
	if (strncmp(text, "//", 2) != 0)
		return ps_say(ret_message, -EINVAL, "write etcd%s://host:port,host:port/prefix",
			      is_tls ? "s" : "");
	options = strchr(text, '?');
	if (options)
		*options++ = '\0';
	path = strchrnul(text + 2, '/');
	hosts = strndup(text + 2, (size_t)(path - text) - 2);
	r = hosts ? parse_hosts(hosts, is_tls, &config, ret_message) : -ENOMEM;
	if (r >= 0)
		r = parse_prefix(path, &config);
	if (r >= 0 && options)
		r = parse_options(options, is_tls, &config, ret_message);
	if (r >= 0)
		r = check_pairs(&config, ret_message);
	if (r < 0)
		return r;
	*ret = config;
	config = (struct ps_etcd_config){0};
	return 0;
}
