/** Where Apache's package puts a release of CouchDB; systemd/couchdb knows it too. */
export const USUAL_DIRECTORY = '/opt/couchdb';
