"""ACL with redis-py's methods, the log of what was refused, and the categories of every command that both servers have."""

import os
import re

import redis
from lib.steps import step
from redis.backoff import NoBackoff
from redis.retry import Retry

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
CATEGORIES = ("keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub admin fast slow blocking dangerous "
              "connection transaction scripting").split()
# Of Valkey alone: there is no cluster and no module here, and one list of slow commands. And of Redis after 7.2: Valkey has no such commands.
NOT_OF_BOTH = re.compile(r"cluster|asking|read(only|write)$|module|failover|migrate|psync$|sync$|replconf|restore-asking|pf(debug|selftest)|"
                      r"commandlog|client\|(capa|import-source)|command\|getkeysandflags|clusterscan|(delex|digest|increx|xackdel|xcfgset|xdelex|xnack)$")


def connect(**more):
    return redis.Redis(HOST, int(PORT), decode_responses=True, retry=Retry(NoBackoff(), 0), **more)


def attempt(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except redis.RedisError as error:
        # Where in which script is told elsewhere.
        return f"{type(error).__name__}: {error}".partition(" script: ")[0]


def show(*values):
    for value in values:
        print(repr(value))


def ordered(user):
    """GETUSER's answer with what is a set in order."""
    if not isinstance(user, dict):
        return user
    return {key: sorted(value) if key in ("flags", "categories") else value for key, value in sorted(user.items())}


def entries(admin, count=None):
    """The log without what differs from run to run."""
    found = []
    for entry in admin.acl_log(*([] if count is None else [count])):
        info = entry["client-info"]
        command = info["cmd"] if isinstance(info, dict) else re.search(r"cmd=(\S+)", info)[1]
        user = info["user"] if isinstance(info, dict) else re.search(r"user=(\S+)", info)[1]
        times = float(entry["age-seconds"]) < 60, entry["timestamp-created"] <= entry["timestamp-last-updated"]
        found.append((entry["count"], entry["reason"], entry["context"], entry["object"], entry["username"], command, user, *times))
    return found


def methods(admin):
    step("acl_setuser")
    show(admin.acl_setuser("app", enabled=True, passwords=["+secret", "+other"], categories=["+@read", "-@dangerous"], commands=["+set", "-mget"],
                           keys=["cart:*", "user:*"], channels=["news.*"], selectors=[("+set", "%W~only:*")], reset=True))
    show(ordered(admin.acl_getuser("app")))
    show(admin.acl_setuser("app", passwords=["-other"], keys=["more:*"], reset_keys=True), ordered(admin.acl_getuser("app")))
    show(admin.acl_setuser("app", enabled=False), admin.acl_setuser("app", nopass=True, enabled=True, reset_passwords=True), ordered(admin.acl_getuser("app")))
    show(attempt(admin.acl_setuser, "app", commands=["+nothing"]), admin.acl_getuser("nobody"))
    step("acl_list, acl_users, acl_whoami, acl_dryrun, acl_genpass, acl_cat")
    show(admin.acl_list(), admin.acl_users(), admin.acl_whoami(), admin.acl_dryrun("app", "get", "more:1"), admin.acl_dryrun("app", "get", "other"))
    show(len(admin.acl_genpass()), len(admin.acl_genpass(13)), sorted(admin.acl_cat()), attempt(admin.acl_cat, "nothing"))
    show(attempt(admin.acl_load), attempt(admin.acl_save), len(admin.acl_help()) > 20)
    step("as the user")
    app = connect(username="app", password="anything", protocol=admin.connection_pool.connection_kwargs["protocol"])
    show(attempt(app.acl_whoami), attempt(app.get, "more:1"), attempt(app.set, "more:1", 1), attempt(app.set, "only:1", 1), attempt(app.get, "only:1"))
    show(attempt(app.acl_list), attempt(app.acl_setuser, "app", commands=["+@all"]), attempt(app.flushall), attempt(app.mget, "more:1"))
    app.close()
    show(admin.acl_deluser("app", "nobody"), admin.acl_users())


def log(admin, protocol):
    step("the log")
    admin.acl_setuser("u", enabled=True, nopass=True, categories=["+@all"], commands=["-incr"], keys=["a*"])
    admin.acl_log_reset()
    u = connect(username="u", password="x", protocol=protocol)
    show([attempt(u.incr, "a1") for _ in range(3)], entries(admin))
    show(attempt(u.get, "b1"), attempt(u.get, "b2"), attempt(u.get, "b1"), attempt(u.publish, "c", "x"), entries(admin))
    show(attempt(u.mget, "a1", "b9", "b8"), entries(admin, 1))
    with u.pipeline() as pipe:
        pipe.set("a1", 1).incr("a1")
        show(attempt(pipe.execute), entries(admin, 1))
    show(attempt(u.eval, "return redis.call('get', 'b1')", 0), attempt(u.eval, "return redis.call('incr', 'a1')", 0), entries(admin, 2))
    show(attempt(u.eval, "return redis.acl_check_cmd('get', 'b7')", 0), entries(admin, 1))
    step("failed logins")
    for user in ("u", "nobody"):
        admin.acl_setuser("u", enabled=True, reset_passwords=True, passwords=["+right"])
        for _ in range(2):
            wrong = connect(username=user, password="wrong", protocol=protocol)
            show(attempt(wrong.ping).split(":")[0])
            wrong.close()
    show([entry[:5] for entry in entries(admin, 2)])
    step("its length")
    show(admin.config_set("acllog-max-len", 2), len(admin.acl_log()), attempt(u.get, "b5"), len(admin.acl_log()), admin.config_set("acllog-max-len", 0))
    show(attempt(u.get, "b6"), admin.acl_log(), admin.config_set("acllog-max-len", 128), admin.acl_log_reset(), admin.acl_log())
    u.close()
    show(admin.acl_deluser("u"))


def categories(admin):
    """Both servers' commands that the other has as well, with the categories that ACL CAT and COMMAND INFO give them."""
    by_cat = {category: {name for name in admin.acl_cat(category) if not NOT_OF_BOTH.match(name) and not name.startswith("fm.")} for category in CATEGORIES}
    everything = sorted(set().union(*by_cat.values()))
    wire = connect(protocol=2)
    wire.set_response_callback("COMMAND INFO", lambda answer, **_: answer)
    for name in everything:
        listed = sorted(category for category, names in by_cat.items() if name in names)
        (info,) = wire.execute_command("COMMAND INFO", name)
        told = sorted(category.removeprefix("@") for category in info[6])
        step(name)
        show(" ".join(listed), told == listed)


for version in (2, 3):
    client = connect(protocol=version)
    step(f"RESP{version}")
    client.flushall()
    methods(client)
    log(client, version)
    client.close()
categories(connect(protocol=2))
