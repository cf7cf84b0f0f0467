"""The referee answers."""


def test_referee_runs_dpgens_own_code(dpgen, tmp_path):
    code = "from dpgen.generator.run import make_fp_task_name as name\nresult = [name(3, n) for n in args['numbers']]"
    assert dpgen(tmp_path, code, numbers=[0, 12]) == ["task.003.000000", "task.003.000012"]
