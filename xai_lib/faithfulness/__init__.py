"""How far an explanation can be trusted: does silencing what it names change the decision?"""
