/** What a status means, and what to do, where the number alone would mislead. */
const REDIRECT = 'a redirect can hide a failure: set health_path, or list this status in health_status';

export const REDIRECTS = { 301: REDIRECT, 302: REDIRECT, 303: REDIRECT, 307: REDIRECT, 308: REDIRECT };

export const COUCHDB_MEANINGS = {
  401:
    'CouchDB requires a login at /_up: in its own ini files set ' +
    'require_valid_user_except_for_up = true instead of require_valid_user = true, then systemctl ' +
    'restart couchdb',
};
